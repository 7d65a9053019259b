"""The edits of a ledger: added, found, reverted, restored, accepted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from emend._validate import check_text
from emend.edits import Edit, check_edits, conflict, conflicting, normalised
from emend.errors import InvalidInput
from emend.ledger.store import _changes, _history, _rows
from emend.ledger.store._changes import AT_ONCE, Change
from emend.ledger.store._connection import Store
from emend.ledger.store._lines import check_entry
from emend.ledger.store._records import (
    LIVE,
    LONGEST_REASON,
    STATUSES,
    Entry,
    Event,
    check_note,
    tidy_tags,
)

_ABOUT = "id IN (SELECT edit FROM statements WHERE subject_key = :subject)"


class EditsOfLedger:
    """The part of `Ledger` that adds, finds and changes edits."""

    _store: Store

    def add(
        self,
        edits: Edit | Iterable[Edit],
        *,
        author: str = "",
        reason: str = "",
        source: str = "",
        tags: Iterable[str] = (),
        status: str = "active",
        supersede: bool = False,
        parent: str | None = None,
    ) -> tuple[Entry, ...]:
        """Add edits, all or none.

        Args:
            edits: What to add.
            author: Who asks for it.
            reason: Why.
            source: Where the facts come from.
            tags: Words to find them by.
            status: "active", or "proposed" for edits that wait for review.
            supersede: Let the new edits win over active ones that want something else; what was
                derived from those goes with them.
            parent: The id of the edit that these are derived from.

        Returns:
            The new entries, in the order given.

        Raises:
            Conflict: Active edits want something else of the same statement, or two of the new.
            InvalidInput: No edits, an id that is there already, a text or status that cannot be
                used, a translation without its edit, or a parent that was taken out.
            UnknownName: There is no such parent.
        """
        edits = check_edits([edits] if isinstance(edits, Edit) else edits)
        tags = tidy_tags(tags)
        if status not in LIVE:
            raise InvalidInput(f"status is {status!r}, expected one of {', '.join(LIVE)}")
        for edit in edits:
            check_entry(Entry(edit, author, reason, source, tags, "", "", status))
        if pairs := conflicting(edits):
            raise conflict(pairs, AT_ONCE)
        ids = [edit.id for edit in edits]
        with self._store.writing() as connection:
            there = _rows.fetch(connection, ids)
            if there:
                raise _already_there(list(there.values()))
            if parent is not None:
                _rows.check_known(connection, [parent])
            change = Change(connection, _rows.tick(connection), author, reason)
            for edit in edits:
                notes = (author, reason, source, tags, change.time, change.time, status)
                _rows.insert_entry(connection, Entry(edit, *notes, parent=parent))
                change.event("added", edit.id, {"status": status})
            _changes.resolve_conflicts(change, ids, supersede)
            return tuple(_rows.fetch_all(connection, ids).values())

    def entry(self, id: str) -> Entry:
        """Return the entry of an edit.

        Raises:
            UnknownName: There is none with this id.
        """
        with self._store.reading() as connection:
            return _rows.fetch_all(connection, [id])[id]

    def entries(
        self,
        *,
        status: str | None = None,
        tag: str | None = None,
        author: str | None = None,
        subject: str | None = None,
    ) -> tuple[Entry, ...]:
        """Return the entries, oldest first; those of one call of `add` in the order given.

        Args:
            status: Only these.
            tag: Only those that bear it.
            author: Only those of this author.
            subject: Only those about it, whatever its case and spacing.

        Raises:
            InvalidInput: There is no such status.
        """
        if status is not None and status not in STATUSES:
            raise InvalidInput(f"status is {status!r}, expected one of {', '.join(STATUSES)}")
        conditions = {
            "status = :status": status,
            "id IN (SELECT edit FROM tags WHERE tag = :tag)": tag,
            "author = :author": author,
            _ABOUT: None if subject is None else normalised(subject),
        }
        wanted = [text for text, value in conditions.items() if value is not None]
        with self._store.reading() as connection:
            rows = connection.execute(
                f"{_rows.ENTRIES} WHERE {' AND '.join(wanted) or '1'} ORDER BY time, number",
                dict(zip(("status", "tag", "author", "subject"), conditions.values(), strict=True)),
            )
            return tuple(_rows.entry_of(row) for row in rows)

    def active(self) -> tuple[Edit, ...]:
        """Return the edits that are built, sorted by id."""
        entries = self.entries(status="active")
        return tuple(entry.edit for entry in sorted(entries, key=lambda entry: entry.id))

    def revert(self, *ids: str, author: str = "", reason: str = "") -> tuple[Entry, ...]:
        """Take out edits that are active or proposed, and with them what was derived from them.

        Returns:
            All entries that changed, sorted by id.

        Raises:
            InvalidInput: One is superseded or reverted already, or no ids are given.
            UnknownName: There is no edit with such an id.
        """
        with self._store.writing() as connection:
            change = _change(connection, ids, author, reason)
            return _sorted(change, _changes.revert(change, ids))

    def reject(self, *ids: str, author: str = "", reason: str = "") -> tuple[Entry, ...]:
        """Take out proposals, and with them what was derived from them.

        Returns:
            All entries that changed, sorted by id.

        Raises:
            InvalidInput: One is not proposed, or no ids are given.
            UnknownName: There is no edit with such an id.
        """
        with self._store.writing() as connection:
            change = _change(connection, ids, author, reason)
            _changes.check_proposed(change, ids, "rejected")
            return _sorted(change, _changes.revert(change, ids))

    def restore(
        self, *ids: str, author: str = "", reason: str = "", supersede: bool = False
    ) -> tuple[Entry, ...]:
        """Bring back edits that were reverted or superseded, and what went with them.

        Each gets the status that it had before.

        Args:
            ids: The edits.
            author: Who does it.
            reason: Why.
            supersede: Let them win over active ones that want something else.

        Returns:
            All entries that changed, sorted by id.

        Raises:
            Conflict: Active edits want something else of the same statement.
            InvalidInput: One is active or proposed already, or was derived from one that is out.
            UnknownName: There is no edit with such an id.
        """
        with self._store.writing() as connection:
            change = _change(connection, ids, author, reason)
            return _sorted(change, _changes.restore(change, ids, supersede))

    def accept(
        self, *ids: str, author: str = "", reason: str = "", supersede: bool = False
    ) -> tuple[Entry, ...]:
        """Make proposals active.

        Args:
            ids: The proposals.
            author: Who does it.
            reason: Why.
            supersede: Let them win over active ones that want something else.

        Returns:
            All entries that changed, sorted by id.

        Raises:
            Conflict: Active edits want something else of the same statement.
            InvalidInput: One is not proposed, or was derived from one that is not active.
            UnknownName: There is no edit with such an id.
        """
        with self._store.writing() as connection:
            change = _change(connection, ids, author, reason)
            return _sorted(change, _changes.accept(change, ids, supersede))

    def note_original(self, id: str, answer: str) -> bool:
        """Fill in the former answer of an edit that has none; whether it had none.

        Raises:
            InvalidInput: The answer is no text.
            UnknownName: There is no edit with this id.
        """
        return bool(self.note_originals({id: answer}))

    def note_originals(self, answers: Mapping[str, str]) -> tuple[str, ...]:
        """Fill in the former answers, by id, of edits that have none; the ids of those.

        Raises:
            InvalidInput: An answer is no text.
            UnknownName: There is no edit with such an id.
        """
        for answer in answers.values():
            check_text("original", answer)
        with self._store.writing() as connection:
            entries = _rows.fetch_all(connection, answers)
            change = Change(connection, _rows.tick(connection))
            without = [one for one, entry in entries.items() if entry.edit.original is None]
            for one in without:
                connection.execute(
                    "UPDATE entries SET original = ? WHERE id = ?", (answers[one], one)
                )
                change.event("noted", one, {"original": answers[one]})
            return tuple(without)

    def log(self, id: str | None = None) -> tuple[Event, ...]:
        """Return the history, oldest first; with an id only what is about that edit.

        Raises:
            UnknownName: There is no edit with this id.
        """
        with self._store.reading() as connection:
            if id is not None:
                _rows.check_known(connection, [id])
            return _history.log(connection, id)

    def conflicts(self, edits: Iterable[Edit] | None = None) -> tuple[tuple[Edit, Edit], ...]:
        """Find pairs of edits that cannot hold together.

        They want different targets for one statement, or are the same under two ids. One statement
        is the same subject and relation, where both have a relation, or the same full text;
        compared without regard to case, spacing and the form of Unicode characters.

        Args:
            edits: Edits that may be added; without them the active ones are looked at alone.

        Returns:
            Pairs of an older and a newer edit; each edit with the first that it conflicts with.
        """
        return conflicting((*self.active(), *(edits or ())))


def _change(
    connection: sqlite3.Connection, ids: tuple[str, ...], author: str, reason: str
) -> Change:
    if not ids:
        raise InvalidInput("no ids were given, expected at least one: nothing to change")
    check_note("author", author)
    check_note("reason", reason, LONGEST_REASON)
    return Change(connection, _rows.tick(connection), author, reason)


def _sorted(change: Change, ids: set[str]) -> tuple[Entry, ...]:
    return tuple(_rows.fetch_all(change.connection, sorted(ids)).values())


def _already_there(entries: list[Entry]) -> InvalidInput:
    first = entries[0]
    more = f" and {len(entries) - 1} more are" if len(entries) > 1 else " is"
    remedy = "restore it" if first.status not in LIVE else "leave it out"
    return InvalidInput(
        f"edit {first.id!r} ({first.status}){more} in the ledger already, expected new ids: "
        f"{remedy}, or give the new one an id of its own"
    )
