"""The lines of an export: records of entries and events, read back with every fault told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, cast

from emend.edits import edit_to_record
from emend.edits._check import check_text
from emend.edits._record import parse_edit
from emend.errors import InvalidInput
from emend.ledger._records import (
    KINDS,
    LONGEST_REASON,
    STATUSES,
    Entry,
    Event,
    check_note,
    tidy_tags,
    to_json,
)
from emend.ledger._rows import read_stamp, stamp

FORMAT = 1
"""The version of the export's form; it stands on its first line."""

LARGEST = 300_000
"""Bytes of an entry. With the longest former answer it is still a line that can be read."""

_ENTRY = tuple(field.name for field in fields(Entry))
_EVENT = tuple(field.name for field in fields(Event))
_EVENT_ID = re.compile("[0-9a-f]{32}")


def entry_record(entry: Entry) -> dict[str, Any]:
    """The plain record of an entry; what is not set is left out."""
    record = {name: getattr(entry, name) for name in _ENTRY}
    record["edit"] = edit_to_record(entry.edit)
    return {name: value for name, value in record.items() if value is not None}


def event_record(event: Event) -> dict[str, Any]:
    """The plain record of an event; what is not set is left out."""
    record = {name: getattr(event, name) for name in _EVENT}
    return {name: value for name, value in record.items() if value is not None}


def check_entry(entry: Entry) -> None:
    """Refuse an entry that cannot be kept, or whose line in an export could not be read.

    Raises:
        InvalidInput: A text is no text or too long, or all of it is.
    """
    for name in ("author", "source"):
        check_note(name, getattr(entry, name))
    check_note("reason", entry.reason, LONGEST_REASON)
    check_note("id", entry.id)
    # Without what is only known later: a former answer, what it was superseded by.
    asked = replace(entry.edit, original=None)
    notes = [entry.author, entry.reason, entry.source, *entry.tags]
    size = len(json.dumps([edit_to_record(asked), notes], ensure_ascii=False).encode())
    if size > LARGEST:
        raise InvalidInput(
            f"edit {entry.id[:60]!r} takes {size:,} bytes, expected at most {LARGEST:,}: "
            "give it fewer probes or shorter texts"
        )


def read_entry(record: object, latest: datetime) -> Entry:
    """The entry of a record.

    Args:
        record: What the line holds.
        latest: Times after this one are refused.

    Raises:
        InvalidInput: It cannot be used; the message has all that is wrong with its edit.
    """
    given = _fields(record, _ENTRY, ("edit", "time", "changed", "status"))
    edit, problems = parse_edit(given["edit"])
    if edit is None:
        raise InvalidInput("; ".join(problems))
    if "id" not in cast("Mapping[str, Any]", given["edit"]):
        raise InvalidInput("id is missing, expected text: add it")
    notes = {name: given.get(name, "") for name in ("author", "reason", "source")}
    links: dict[str, str | None] = {
        name: given.get(name) for name in ("parent", "superseded_by", "taken_with")
    }
    for name, value in links.items():
        if value is not None:
            check_text(name, value)
    times = {name: _time(name, given[name], latest) for name in ("time", "changed")}
    status, before = given["status"], given.get("before")
    _one_of("status", status, STATUSES)
    if before is not None:
        _one_of("before", before, ("proposed", "active"))
    tags = tidy_tags(given.get("tags", []))
    entry = Entry(edit, tags=tags, status=status, before=before, **links, **notes, **times)
    check_entry(entry)
    return entry


def read_event(record: object, latest: datetime) -> Event:
    """The event of a record.

    Args:
        record: What the line holds.
        latest: Times after this one are refused.

    Raises:
        InvalidInput: It cannot be used.
    """
    given = _fields(record, _EVENT, ("id", "time", "what"))
    if not isinstance(given["id"], str) or not _EVENT_ID.fullmatch(given["id"]):
        raise InvalidInput("id of an event is expected to be 32 hexadecimal digits")
    _one_of("what", given["what"], KINDS)
    notes = {name: given.get(name, "") for name in ("author", "reason")}
    check_note("author", notes["author"])
    check_note("reason", notes["reason"], LONGEST_REASON)
    edit = given.get("edit")
    if edit is not None:
        check_text("edit", edit)
    details = given.get("details", {})
    to_json("details", details)
    time = _time("time", given["time"], latest)
    return Event(given["id"], time, given["what"], edit, details=details, **notes)


def _fields(record: object, known: tuple[str, ...], required: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise InvalidInput(f"found no object, expected one with {', '.join(required)}")
    given = cast("Mapping[str, Any]", record)
    for name in given:
        if name not in known:
            raise InvalidInput(f"unknown field {name[:40]!r}, expected {', '.join(known)}")
    for name in required:
        if name not in given:
            raise InvalidInput(f"{name} is missing: add it")
    return given


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(f"{name} is {str(value)[:40]!r}, expected one of {', '.join(known)}")


def _time(name: str, value: object, latest: datetime) -> str:
    try:
        time = read_stamp(cast(str, value))
    except (TypeError, ValueError):
        raise InvalidInput(
            f"{name} is {str(value)[:40]!r}, expected a time like 2026-01-31T12:00:00.000000Z"
        ) from None
    if time > latest:
        raise InvalidInput(f"{name} is {value}, expected a time that has passed: check its clock")
    return stamp(time)
