"""Between ledgers: the lines of an export, and joining what comes from elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from emend._io import write_json_lines
from emend.edits import Edit, conflict, conflicting, reason_of, shortened
from emend.edits._items import Item, Problem, items_of
from emend.errors import BrokenFile, InvalidInput, MissingFile, StoreFailure
from emend.ledger import _history
from emend.ledger._changes import Change, revert_orphans, settle
from emend.ledger._lines import FORMAT, entry_record, event_record, read_entry, read_event
from emend.ledger._records import Entry, Event, to_json
from emend.ledger._rows import (
    ENTRIES,
    entry_of,
    fetch,
    insert_entry,
    insert_tags,
    now,
    put_event,
)

_MOST_SHOWN = 50
_CLOCKS_DIFFER = timedelta(days=1)
_STATE = ("status", "before", "superseded_by", "taken_with", "changed")


@dataclass(frozen=True)
class Records:
    """All that is exported of a ledger."""

    base: Mapping[str, Any] | None
    entries: tuple[Entry, ...]
    events: tuple[Event, ...]


def records_of(connection: sqlite3.Connection) -> Records:
    """All that is exported, oldest first."""
    rows = connection.execute(f"{ENTRIES} ORDER BY time, number")
    entries = tuple(entry_of(row) for row in rows)
    return Records(_history.base(connection), entries, _history.log(connection, None))


def write(path: Path, records: Records) -> int:
    """Write an export, whole or not at all; the number of entries.

    Raises:
        InvalidInput: The path does not end in .jsonl or is a directory.
        StoreFailure: It cannot be written.
    """
    if path.suffix.lower() != ".jsonl":
        raise InvalidInput(f"{path} ends in {path.suffix!r}, expected .jsonl: rename it")
    write_json_lines(path, _lines(records))
    return len(records.entries)


def _lines(records: Records) -> Iterator[dict[str, Any]]:
    yield {"ledger": FORMAT, "base": records.base}
    yield from ({"entry": entry_record(entry)} for entry in records.entries)
    yield from ({"event": event_record(event)} for event in records.events)


def read(path: Path) -> Records:
    """Read an export and look at every line before any is used.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or does not end in .jsonl.
        StoreFailure: It cannot be read.
        BrokenFile: Lines cannot be used; `problems` has one line about each.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected an export: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path of the export")
    if path.suffix.lower() != ".jsonl":
        raise InvalidInput(f"{path} ends in {path.suffix!r}, expected .jsonl: rename it")
    try:
        items = list(items_of(path))
    except OSError as error:
        raise StoreFailure(f"cannot read {path} ({error.strerror}): expected a file") from error
    reader = _Reader(path)
    for item in items:
        reader.take(item)
    return reader.records()


def checked(path: Path, records: Records) -> Records:
    """Look at what another ledger holds as if it came from a file.

    Raises:
        BrokenFile: It holds what no ledger of ours writes; lines are counted as in an export.
    """
    reader = _Reader(path)
    for number, line in enumerate(_lines(records), 1):
        reader.take(Item(number, line))
    return reader.records()


class _Reader:
    """Lines of an export, gathered with what is wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest = now() + _CLOCKS_DIFFER
        self.problems: list[str] = []
        self.base: Mapping[str, Any] | None = None
        self.started = False
        self.entries: dict[str, tuple[int, Entry]] = {}
        self.events: dict[str, tuple[int, Event]] = {}

    def take(self, item: Item | Problem) -> None:
        """Note a line, or what is wrong with it."""
        if isinstance(item, Problem):
            self._fault(item.line, item.message)
            return
        try:
            if self.started:
                self._line(item)
            else:
                self._first(item.record)
        except InvalidInput as error:
            self._fault(item.line, str(error))
        self.started = True

    def records(self) -> Records:
        """All lines, where every one can be used.

        Raises:
            BrokenFile: Not every one can.
        """
        if not self.started and not self.problems:
            self._fault(1, "found no line, expected an export of a ledger")
        if not self.problems:  # else ids may be missing for that reason
            self._check_links()
        if self.problems:
            shown = self.problems[:_MOST_SHOWN]
            if len(self.problems) == 1:
                raise BrokenFile(shown[0])
            if len(self.problems) > len(shown):
                shown.append(f"... and {len(self.problems) - len(shown)} more")
            raise BrokenFile(f"{self.path}: {len(self.problems)} problems", shown)
        entries = tuple(entry for _, entry in self.entries.values())
        return Records(self.base, entries, tuple(event for _, event in self.events.values()))

    def _fault(self, line: int, message: str) -> None:
        self.problems.append(f"{self.path}:{line}: {shortened(message, 500)}")

    def _first(self, record: object) -> None:
        if not isinstance(record, Mapping) or "ledger" not in record:
            raise InvalidInput(
                "found no line that begins an export, expected a file of `emend ledger export`: "
                "plain edits are added with `emend ledger add`"
            )
        version = cast("Mapping[str, Any]", record)["ledger"]
        if version != FORMAT:
            raise InvalidInput(
                f"found an export of version {repr(version)[:20]}, expected {FORMAT}: "
                "read it with the emend that wrote it, or a newer one"
            )
        base = cast("Mapping[str, Any]", record).get("base")
        if base is not None:
            to_json("base", base)
        self.base = base

    def _line(self, item: Item) -> None:
        record = item.record
        if not isinstance(record, Mapping) or list(record) not in (["entry"], ["event"]):
            raise InvalidInput("found another thing, expected one object: an entry or an event")
        record = cast("Mapping[str, Any]", record)
        if "entry" in record:
            entry = read_entry(record["entry"], self.latest)
            _once(self.entries, entry.id, (item.line, entry))
        else:
            event = read_event(record["event"], self.latest)
            _once(self.events, event.id, (item.line, event))

    def _check_links(self) -> None:
        """Every id that is named has an entry, and no edit is derived from itself."""
        for line, entry in self.entries.values():
            for name in ("parent", "superseded_by", "taken_with"):
                link = getattr(entry, name)
                if link is not None and link not in self.entries:
                    self._fault(line, f"{name} is {link[:60]!r}, expected an id in this file")
        whole: set[str | None] = set()  # known to come to an end
        for line, entry in self.entries.values():
            path: dict[str | None, None] = {}
            above: str | None = entry.id
            while above in self.entries and above not in whole and above not in path:
                path[above] = None
                above = self.entries[above][1].parent
            if above in path:
                self._fault(line, f"edit {entry.id[:60]!r} is derived from itself")
            whole.update(path)
        active = [entry.edit for _, entry in self.entries.values() if entry.status == "active"]
        for older, newer in conflicting(active):
            line, first = self.entries[newer.id][0], self.entries[older.id][0]
            reason = reason_of(older, newer)
            self._fault(
                line,
                f"edit {newer.id[:60]!r} and that on line {first} are both active, but {reason}",
            )
        for line, event in self.events.values():
            if event.edit is not None and event.edit not in self.entries:
                self._fault(line, f"edit is {event.edit[:60]!r}, expected an id in this file")


def _once(found: dict[str, tuple[int, Any]], id: str, item: tuple[int, Any]) -> None:
    if id in found:
        raise InvalidInput(f"id {id[:60]!r} is also on line {found[id][0]}, expected it once")
    found[id] = item


def join(change: Change, records: Records, supersede: bool) -> tuple[str, ...]:
    """Take in entries and history; the ids of the entries that are new, in order.

    Raises:
        Conflict: Active edits want different things, or one id has two different edits.
    """
    connection = change.connection
    here = fetch(connection, [entry.id for entry in records.entries])
    _check_same(here, records.entries)
    fresh: list[str] = []
    for entry in records.entries:
        known = here.get(entry.id)
        if known is None:
            insert_entry(connection, entry)
        else:
            _unite(connection, known, entry)
        if entry.status == "active" and (known is None or known.status != "active"):
            fresh.append(entry.id)
    for event in records.events:
        put_event(connection, event)
    revert_orphans(change)
    joined = fetch(connection, fresh)
    settle(change, [one for one in fresh if joined[one].status == "active"], supersede)
    return tuple(entry.id for entry in records.entries if entry.id not in here)


def _check_same(here: Mapping[str, Entry], entries: Iterable[Entry]) -> None:
    """Refuse different edits under one id. A former answer is no part of what is asked for."""
    different = [
        (here[entry.id].edit, entry.edit)
        for entry in entries
        if entry.id in here and _asked(here[entry.id].edit) != _asked(entry.edit)
    ]
    if different:
        what = "edits differ and have one id, expected an id of its own for each"
        raise conflict(different, "add one of them anew under another id", what)


def _asked(edit: Edit) -> Edit:
    return replace(edit, original=None)


def _unite(connection: sqlite3.Connection, here: Entry, there: Entry) -> None:
    """One entry of two for the same edit: the later status, all tags, whoever asked here."""
    insert_tags(connection, here.id, there.tags)
    original = there.edit.original if here.edit.original is None else here.edit.original
    newer = there if there.changed > here.changed else here
    columns = {**{name: getattr(newer, name) for name in _STATE}, "original": original}
    names = ", ".join(f"{name} = :{name}" for name in columns)  # names of ours
    connection.execute(f"UPDATE entries SET {names} WHERE id = :id", {**columns, "id": here.id})
