"""What may become of an entry: superseded, reverted, restored, accepted; and what goes with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from emend.edits import conflict
from emend.errors import Conflict, InvalidInput
from emend.ledger.store._records import LIVE, Entry
from emend.ledger.store._rows import fetch, fetch_all, id_list, insert_event

# The definition of `emend.edits.conflicting`. Both halves use an index; an OR of the two
# conditions would go through the table.
_CONFLICTS = """
    WITH fresh AS (
        SELECT statements.* FROM statements JOIN entries ON entries.id = statements.edit
        WHERE statements.edit IN (SELECT value FROM json_each(:ids)) AND entries.status = 'active'
    ), pairs (fresh, other) AS (
        SELECT fresh.edit, other.edit FROM fresh JOIN statements AS other
            ON other.text_key = fresh.text_key
        UNION
        SELECT fresh.edit, other.edit FROM fresh JOIN statements AS other
            ON other.subject_key = fresh.subject_key AND other.relation_key = fresh.relation_key
        WHERE other.target_key <> fresh.target_key
    )
    SELECT pairs.fresh, pairs.other FROM pairs JOIN entries ON entries.id = pairs.other
    WHERE entries.status = 'active' AND pairs.other <> pairs.fresh
    ORDER BY 1, 2
"""
AT_ONCE = "they came in at once: keep one of them"
_DESCENDANTS = """
    WITH RECURSIVE below (id) AS (
        SELECT id FROM entries WHERE parent = :id AND status IN ('proposed', 'active')
        UNION
        SELECT entries.id FROM entries JOIN below ON entries.parent = below.id
        WHERE entries.status IN ('proposed', 'active')
    )
    SELECT id FROM below ORDER BY id
"""
_ORPHANS = """
    SELECT child.id, child.status, parent.id, parent.status
    FROM entries AS child JOIN entries AS parent ON child.parent = parent.id
    WHERE (:ids IS NULL OR child.id IN (SELECT value FROM json_each(:ids))) AND (
        child.status = 'active' AND parent.status <> 'active'
        OR child.status = 'proposed' AND parent.status NOT IN ('proposed', 'active')
    )
    ORDER BY child.id
"""


@dataclass(frozen=True)
class Change:
    """One change: when it is made, by whom and why."""

    connection: sqlite3.Connection
    time: str
    author: str = ""
    reason: str = ""

    def event(self, what: str, edit: str, details: Mapping[str, Any] | None = None) -> None:
        """Write a line of the history about it."""
        insert_event(
            self.connection,
            self.time,
            what,
            edit,
            author=self.author,
            reason=self.reason,
            details=details,
        )

    def update(self, entry: str, **columns: str | None) -> None:
        """Set columns of an entry; a change of status is dated."""
        columns["changed"] = self.time
        names = ", ".join(f"{name} = :{name}" for name in columns)  # names of ours
        self.connection.execute(
            f"UPDATE entries SET {names} WHERE id = :id", {**columns, "id": entry}
        )


def accept(change: Change, ids: tuple[str, ...], supersede: bool) -> set[str]:
    """Make proposals active; the ids of all that changed."""
    for one in check_proposed(change, ids, "accepted"):
        change.update(one, status="active")
        change.event("accepted", one)
    return {*ids, *resolve_conflicts(change, ids, supersede)}


def check_proposed(change: Change, ids: tuple[str, ...], done: str) -> dict[str, Entry]:
    """Return the proposals of these ids; ids of other edits are refused."""
    entries = fetch_all(change.connection, ids)
    for entry in entries.values():
        if entry.status != "proposed":
            raise InvalidInput(
                f"edit {entry.id!r} is {entry.status}, expected a proposed one: "
                f"only proposals are {done}"
            )
    return entries


def revert(change: Change, ids: tuple[str, ...]) -> set[str]:
    """Take out edits and what was derived from them; the ids of all that changed."""
    entries = fetch_all(change.connection, ids)
    for entry in entries.values():
        if entry.status not in LIVE:
            raise InvalidInput(
                f"edit {entry.id!r} is {entry.status} already, expected one that is active or "
                "proposed: there is nothing to take out"
            )
    changed: set[str] = set()
    for entry in entries.values():
        change.update(entry.id, status="reverted", previous_status=entry.status, cascade_root=None)
        change.event("reverted", entry.id)
    for entry in entries.values():
        changed |= {entry.id} | _cascade(change, entry.id, "reverted")
    return changed


def restore(change: Change, ids: tuple[str, ...], supersede: bool) -> set[str]:
    """Bring edits back, with what went with them; the ids of all that changed."""
    back: dict[str, Entry] = {}
    named = fetch_all(change.connection, ids)
    for entry in named.values():
        if entry.status in LIVE:
            raise InvalidInput(
                f"edit {entry.id!r} is {entry.status}, expected a reverted or superseded one: "
                "there is nothing to bring back"
            )
        back[entry.id] = entry
        rows = change.connection.execute(
            "SELECT id FROM entries WHERE cascade_root = ? ORDER BY id", (entry.id,)
        )
        back.update(fetch(change.connection, [row[0] for row in rows]))
    for entry in back.values():
        change.update(
            entry.id,
            status=entry.previous_status or "active",
            previous_status=None,
            superseded_by=None,
            cascade_root=None,
        )
        details = None if entry.id in named else {"with": entry.cascade_root}
        change.event("restored", entry.id, details)
    return {*back, *resolve_conflicts(change, back, supersede)}


def resolve_conflicts(change: Change, fresh: Iterable[str], supersede: bool) -> set[str]:
    """See to it that no two active edits conflict after some became active.

    Args:
        change: The change under way.
        fresh: The ids of those that became active.
        supersede: Whether the one that became active later wins; else conflicts are refused.

    Returns:
        The ids of those that lost.

    Raises:
        Conflict: There are conflicts, and none or both sides became active by this change.
        InvalidInput: An edit would be without the one that it was derived from.
    """
    connection = change.connection
    fresh = tuple(fresh)
    _check_parents(connection, fresh)
    losses = _losses(connection, fresh)
    together = [pair for pair in losses if pair[0].changed == pair[1].changed]
    if together:
        raise _conflict(together, AT_ONCE)
    if losses and not supersede:
        raise _conflict(losses, "revert one, or let the newer win with supersede=True")
    lost: set[str] = set()
    for old, new in losses:
        if not lost & {old.id, new.id}:
            lost |= {old.id} | _supersede(change, old, new)
    return lost


def revert_orphans(change: Change) -> None:
    """Take out what came from elsewhere without the edit that it was derived from."""
    rows = change.connection.execute(_ORPHANS, {"ids": None}).fetchall()
    for parent in sorted({row[2] for row in rows}):
        _cascade(change, parent, "reverted")


def _losses(connection: sqlite3.Connection, fresh: tuple[str, ...]) -> list[tuple[Entry, Entry]]:
    """List pairs of a loser and a winner, the newest winner first."""
    pairs = [tuple(row) for row in connection.execute(_CONFLICTS, {"ids": id_list(fresh)})]
    entries = fetch(connection, {one for pair in pairs for one in pair})
    ordered = {tuple(sorted((entries[one].changed, one) for one in pair)) for pair in pairs}
    latest = sorted(ordered, key=lambda pair: (pair[1], pair[0]), reverse=True)
    return [(entries[old], entries[new]) for (_, old), (_, new) in latest]


def _conflict(losses: list[tuple[Entry, Entry]], remedy: str) -> Conflict:
    return conflict([(old.edit, new.edit) for old, new in reversed(losses)], remedy)


def _check_parents(connection: sqlite3.Connection, fresh: tuple[str, ...]) -> None:
    row = connection.execute(_ORPHANS, {"ids": id_list(fresh)}).fetchone()
    if row is not None:
        child, status, parent, found = row
        raise InvalidInput(
            f"edit {child!r} would be {status} but {parent!r}, from which it was derived, is "
            f"{found}: accept or restore {parent!r} first"
        )


def _supersede(change: Change, old: Entry, new: Entry) -> set[str]:
    change.update(
        old.id,
        status="superseded",
        previous_status=old.status,
        superseded_by=new.id,
        cascade_root=None,
    )
    change.event("superseded", old.id, {"by": new.id})
    taken = _cascade(change, old.id, "superseded", new.id)
    if new.id in taken:
        raise InvalidInput(
            f"edit {new.id!r} was derived from {old.id!r}, which it would supersede: "
            f"revert {old.id!r} and add the newer edit without a parent"
        )
    return taken


def _cascade(change: Change, root: str, status: str, by: str | None = None) -> set[str]:
    """Take out what was derived from an entry that went."""
    rows = change.connection.execute(_DESCENDANTS, {"id": root}).fetchall()
    taken = fetch(change.connection, [row[0] for row in rows])
    for entry in taken.values():
        change.update(
            entry.id,
            status=status,
            previous_status=entry.status,
            superseded_by=by,
            cascade_root=root,
        )
        change.event(status, entry.id, {"with": root})
    return set(taken)
