"""Between ledgers: the lines of an export, and joining what comes from elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from emend._io import write_json_lines
from emend._parse import Item, check_path, items_of
from emend._validate import Fault, Problems, Record, shown
from emend.edits import Edit, conflict, conflicting, reason_of
from emend.errors import InvalidInput
from emend.ledger.store import _history
from emend.ledger.store._changes import Change, resolve_conflicts, revert_orphans
from emend.ledger.store._lines import FORMAT, entry_record, event_record, read_entry, read_event
from emend.ledger.store._records import Entry, Event, json_fault
from emend.ledger.store._rows import (
    ENTRIES,
    entry_of,
    fetch,
    insert_entry,
    insert_tags,
    now,
    put_event,
)

_CLOCKS_DIFFER = timedelta(days=1)
_STATE = ("status", "previous_status", "superseded_by", "cascade_root", "changed")


@dataclass(frozen=True)
class Records:
    """All that is exported of a ledger."""

    base: Mapping[str, Any] | None
    entries: tuple[Entry, ...]
    events: tuple[Event, ...]


def records_of(connection: sqlite3.Connection) -> Records:
    """Collect all that is exported, oldest first."""
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
        BrokenFile: Lines cannot be used; `problems` has one line about each.
    """
    check_path(path, "a ledger's export", (".jsonl",))
    reader = _Reader(path)
    for item in items_of(path, reader.problems):
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
        self.latest = now() + _CLOCKS_DIFFER
        self.problems = Problems(str(path))
        self.base: Mapping[str, Any] | None = None
        self.started = False
        self.entries: dict[str, tuple[int, Entry]] = {}
        self.events: dict[str, tuple[int, Event]] = {}

    def take(self, item: Item) -> None:
        """Read a line, or note what is wrong with it."""
        record = Record.of(item.record, self.problems, None, what="the line", line=item.line)
        if record is not None and self.started:
            self._line(record, item.line)
        elif record is not None:
            self._first(record, item.line)
        self.started = True

    def records(self) -> Records:
        """Return all lines, if every one can be used.

        Raises:
            BrokenFile: Not every one can.
        """
        if not self.started and not self.problems:
            self._note(1, "", "found no line", "an export of a ledger", "check the path")
        if not self.problems:  # else ids may be missing for that reason
            self._check_links()
        self.problems.check()
        entries = tuple(entry for _, entry in self.entries.values())
        return Records(self.base, entries, tuple(event for _, event in self.events.values()))

    def _note(self, line: int, field: str, found: str, expected: str, remedy: str) -> None:
        self.problems.note(Fault(found, expected, remedy), field, line)

    def _first(self, record: Record, line: int) -> None:
        version = record.values.get("ledger")
        if "ledger" not in record.values:
            expected = "a file of `emend ledger export`"
            remedy = "plain edits are added with `emend ledger add`"
            self._note(line, "", "found no line that begins an export", expected, remedy)
        elif version != FORMAT:
            remedy = "read it with the efix that wrote it, or a newer one"
            found = f"found an export of version {shown(version, 20)}"
            self._note(line, "", found, str(FORMAT), remedy)
        elif record.has("base"):
            base = record.values["base"]
            if record.note("base", json_fault(base)):
                self.base = cast("Mapping[str, Any]", base)

    def _line(self, record: Record, line: int) -> None:
        kinds = list(record.values)
        if kinds == ["entry"]:
            entry = read_entry(record, self.latest)
            self._keep(self.entries, entry, line)
        elif kinds == ["event"]:
            event = read_event(record, self.latest)
            self._keep(self.events, event, line)
        else:
            found = f"found {', '.join(map(shown, kinds[:3])) or 'nothing'}"
            self._note(line, "", found, "one field: entry or event", "remove the line")

    def _keep(self, kept: dict[str, Any], one: Entry | Event | None, line: int) -> None:
        if one is None:  # a problem was noted
            return
        if one.id in kept:
            found = f"{shown(one.id, 60)} is also on line {kept[one.id][0]}"
            self._note(line, "id", found, "it once", "remove one of the lines")
            return
        kept[one.id] = (line, one)

    def _check_links(self) -> None:
        """Check that every id named has an entry, and that no edit is derived from itself."""
        for line, entry in self.entries.values():
            for name in ("parent", "superseded_by", "cascade_root"):
                link = getattr(entry, name)
                if link is not None and link not in self.entries:
                    self._unlinked(line, f"entry.{name}", link)
        whole: set[str | None] = set()  # known to come to an end
        for line, entry in self.entries.values():
            path: dict[str | None, None] = {}
            above: str | None = entry.id
            while above in self.entries and above not in whole and above not in path:
                path[above] = None
                above = self.entries[above][1].parent
            if above in path:
                found = f"{shown(entry.id, 60)} is derived from itself"
                self._note(line, "edit", found, "another parent, or none", "fix parent")
            whole.update(path)
        active = [entry.edit for _, entry in self.entries.values() if entry.status == "active"]
        for older, newer in conflicting(active):
            line, first = self.entries[newer.id][0], self.entries[older.id][0]
            found = f"{shown(newer.id, 60)} and that on line {first} are both active"
            said = f"{found}, but {reason_of(older, newer)}"
            self._note(line, "edit", said, "", "revert one of them")
        for line, event in self.events.values():
            if event.edit is not None and event.edit not in self.entries:
                self._unlinked(line, "event.edit", event.edit)

    def _unlinked(self, line: int, field: str, id: str) -> None:
        remedy = "export the whole ledger"
        self._note(line, field, f"is {shown(id, 60)}", "an id in this file", remedy)


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
    resolve_conflicts(change, [one for one in fresh if joined[one].status == "active"], supersede)
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
    """Unite two entries for the same edit: the later status, all tags, this ledger's author."""
    insert_tags(connection, here.id, there.tags)
    original = there.edit.original if here.edit.original is None else here.edit.original
    newer = there if there.changed > here.changed else here
    columns = {**{name: getattr(newer, name) for name in _STATE}, "original": original}
    names = ", ".join(f"{name} = :{name}" for name in columns)  # names of ours
    connection.execute(f"UPDATE entries SET {names} WHERE id = :id", {**columns, "id": here.id})
