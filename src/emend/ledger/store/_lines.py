"""The lines of an export: records of entries and events, read back with every fault reported."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from typing import Any, cast

from emend._validate import Fault, Record, refuse, shown
from emend.edits import edit_to_record
from emend.edits.record import FIELDS, parse_edit
from emend.ledger.store._records import (
    KINDS,
    LONGEST_REASON,
    STATUSES,
    Entry,
    Event,
    check_note,
    json_fault,
    note_fault,
)
from emend.ledger.store._rows import read_stamp, stamp

FORMAT = 1
"""The version of the export's form; written on its first line."""

LARGEST = 300_000
"""Bytes of an entry. With the longest former answer it is still a line that can be read."""

_ENTRY = tuple(field.name for field in fields(Entry))
_EVENT = tuple(field.name for field in fields(Event))
_EVENT_ID = re.compile("[0-9a-f]{32}")


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return the plain record of an entry, without what is not set."""
    record = {name: getattr(entry, name) for name in _ENTRY}
    record["edit"] = edit_to_record(entry.edit)
    return {name: value for name, value in record.items() if value is not None}


def event_record(event: Event) -> dict[str, Any]:
    """Return the plain record of an event, without what is not set."""
    record = {name: getattr(event, name) for name in _EVENT}
    return {name: value for name, value in record.items() if value is not None}


def check_entry(entry: Entry) -> None:
    """Refuse an entry that cannot be kept, or whose line in an export could not be read.

    Raises:
        InvalidInput: A text is no text or too long, or all of it is; or it is a part of another.
    """
    for name in ("author", "source", "id"):
        check_note(name, getattr(entry, name))
    check_note("reason", entry.reason, LONGEST_REASON)
    refuse(f"edit {shown(entry.id, 60)}", _part_fault(entry) or _size_fault(entry))


def _part_fault(entry: Entry) -> Fault | None:
    if entry.edit.translation_of is None:
        return None
    found = f"is a translation of {shown(entry.edit.translation_of, 60)}"
    remedy = "add that edit with its translations, which come and go together"
    return Fault(found, "a whole edit", remedy)


def _size_fault(entry: Entry) -> Fault | None:
    # Without what is only known later: a former answer, what it was superseded by.
    asked = replace(entry.edit, original=None)
    notes = [entry.author, entry.reason, entry.source, *entry.tags]
    size = len(json.dumps([edit_to_record(asked), notes], ensure_ascii=False).encode())
    if size <= LARGEST:
        return None
    remedy = "give it fewer probes or shorter texts"
    return Fault(f"takes {size:,} bytes", f"at most {LARGEST:,}", remedy)


def read_entry(line: Record, latest: datetime) -> Entry | None:
    """Read the entry of a line; None, and a problem noted for each thing wrong with it.

    Args:
        line: What the line holds, in the field `entry`.
        latest: Times after this one are refused.
    """
    before = len(line.problems)
    given = line.record("entry", _ENTRY)
    if given is None:
        return None
    asked = given.record("edit", FIELDS, required=True)
    edit = None
    if asked is not None:
        edit = parse_edit(asked.values, line.problems, place=asked.place, line=line.line)
        asked.text("id", note_fault)
    notes = _notes(given, ("author", "reason", "source"))
    links = {
        name: given.text(name, required=False)
        for name in ("parent", "superseded_by", "cascade_root")
    }
    times = {name: _time(given, name, latest) for name in ("time", "changed")}
    status = given.choice("status", STATUSES)
    former = given.choice("previous_status", ("proposed", "active"), required=False)
    tags = given.texts("tags", note_fault)
    if len(line.problems) > before or edit is None or status is None:
        return None
    tags = tuple(sorted(set(tags)))
    entry = Entry(edit, tags=tags, status=status, previous_status=former, **links, **notes, **times)
    return entry if given.note("edit", _part_fault(entry) or _size_fault(entry)) else None


def read_event(line: Record, latest: datetime) -> Event | None:
    """Read the event of a line; None, and a problem noted for each thing wrong with it.

    Args:
        line: What the line holds, in the field `event`.
        latest: Times after this one are refused.
    """
    before = len(line.problems)
    given = line.record("event", _EVENT)
    if given is None:
        return None
    id, what = given.text("id", _event_id_fault), given.choice("what", KINDS)
    notes = _notes(given, ("author", "reason"))
    edit = given.text("edit", required=False)
    details = given.values.get("details", {})
    given.note("details", json_fault(details))
    time = _time(given, "time", latest)
    if len(line.problems) > before or id is None or what is None:
        return None
    details = cast("Mapping[str, Any]", details)
    return Event(id, time, what, edit, details=details, **notes)


def _notes(given: Record, names: tuple[str, ...]) -> dict[str, str]:
    checks = {"reason": partial(note_fault, longest=LONGEST_REASON)}
    return {
        name: (given.text(name, checks.get(name, note_fault)) if name in given.values else "") or ""
        for name in names
    }


def _event_id_fault(value: object) -> Fault | None:
    if isinstance(value, str) and _EVENT_ID.fullmatch(value):
        return None
    return Fault(f"is {shown(value)}", "32 hexadecimal digits", "take it from the export")


def _time(given: Record, name: str, latest: datetime) -> str:
    text = given.text(name, partial(_time_fault, latest=latest))
    return "" if text is None else stamp(read_stamp(text))


def _time_fault(value: object, latest: datetime) -> Fault | None:
    try:
        time = read_stamp(cast(str, value))
    except (TypeError, ValueError):
        expected = "a time like 2026-01-31T12:00:00.000000Z"
        return Fault(f"is {shown(str(value))}", expected, "fix it")
    if time > latest:
        return Fault(f"is {value}", "a time that has passed", "check the clock of its machine")
    return None
