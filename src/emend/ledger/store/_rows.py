"""Between the rows of the tables and the records that a ledger gives back."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from emend.edits import Edit, edit_from_record, edit_to_record, keys_of, statements_of
from emend.errors import BrokenFile, EmendError, UnknownName, nearest
from emend.ledger.store._records import Build, Entry, Event, Measurement, Solved, to_json

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_NOTES = ("author", "reason", "source", "time", "changed", "status")
_LINKS = ("previous_status", "parent", "superseded_by", "cascade_root")
_LISTS = ("probes", "translations")
_COLUMNS = (
    *("id", "prompt", "subject", "target", "original", "relation", "language"),
    *_LISTS,
    *_NOTES,
    *_LINKS,
)
_INSERT = (
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) "  # names of ours
    f"VALUES ({', '.join(':' + name for name in _COLUMNS)})"
)
_INSERT_STATEMENT = (
    "INSERT INTO statements (edit, text_key, subject_key, relation_key, target_key) "
    "VALUES (?, ?, ?, ?, ?)"
)
ENTRIES = """
    SELECT entries.*, (
        SELECT json_group_array(tag) FROM (SELECT tag FROM tags WHERE edit = entries.id)
    ) AS tags FROM entries
"""
"""Begins every query for entries; `WHERE` and `ORDER BY` follow."""


def now() -> datetime:
    """Return the time of this machine's clock, in UTC."""
    return datetime.now(timezone.utc)


def stamp(time: datetime) -> str:
    """Write a time as the ledger stores it: such texts sort as the times do."""
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def read_stamp(text: str) -> datetime:
    """Read the time of a stamp.

    Raises:
        ValueError: It is none.
    """
    if not _STAMP.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)


def tick(connection: sqlite3.Connection) -> str:
    """Return a transaction's time: later than all before it, even if a clock was set back."""
    last = connection.execute("SELECT max(time) FROM events").fetchone()[0]
    current = stamp(now())
    if last is None or current > last:
        return current
    try:
        return stamp(read_stamp(last) + timedelta(microseconds=1))
    except (ValueError, OverflowError) as error:
        raise BrokenFile(
            f"the history ends at {last!r}, expected a time: take the last copy of the ledger"
        ) from error


def insert_entry(connection: sqlite3.Connection, entry: Entry) -> None:
    """Put an entry and its tags in."""
    record = edit_to_record(entry.edit)
    values: dict[str, Any] = dict.fromkeys(_COLUMNS)
    values.update(record)
    for name in _LISTS:
        values[name] = json.dumps(record.get(name, []), ensure_ascii=False)
    values.update((name, getattr(entry, name)) for name in (*_NOTES, *_LINKS))
    connection.execute(_INSERT, values)
    keys = map(keys_of, statements_of([entry.edit]))
    rows = [(entry.id, one.text, one.subject, one.relation, one.target) for one in keys]
    connection.executemany(_INSERT_STATEMENT, rows)
    insert_tags(connection, entry.id, entry.tags)


def insert_tags(connection: sqlite3.Connection, edit: str, tags: Iterable[str]) -> None:
    """Put tags in; those already there stay."""
    connection.executemany(
        "INSERT OR IGNORE INTO tags (edit, tag) VALUES (?, ?)", [(edit, tag) for tag in tags]
    )


def insert_event(
    connection: sqlite3.Connection,
    time: str,
    what: str,
    edit: str | None = None,
    *,
    author: str = "",
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Put a new line of the history in."""
    put_event(connection, Event(new_id(), time, what, edit, author, reason, details or {}))


def put_event(connection: sqlite3.Connection, event: Event) -> None:
    """Put an event in; one that is already there stays."""
    connection.execute(
        "INSERT OR IGNORE INTO events (id, time, what, edit, author, reason, details) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(event.id, event.time, event.what, event.edit, event.author, event.reason),
            to_json("details", event.details),
        ),
    )


def new_id() -> str:
    """Draw 32 hexadecimal digits, unique across ledgers."""
    return secrets.token_hex(16)


def entry_of(row: sqlite3.Row) -> Entry:
    """Return the entry of a row of `ENTRIES`.

    Raises:
        BrokenFile: It holds what no ledger of ours writes.
    """
    try:
        return Entry(
            edit=_edit_of(row),
            tags=tuple(from_json(row["tags"])),
            **{name: row[name] for name in (*_NOTES, *_LINKS)},
        )
    except (EmendError, TypeError) as error:
        raise BrokenFile(
            f"edit {row['id']!r} is damaged ({error}): take the last copy of the ledger"
        ) from error


def _edit_of(row: sqlite3.Row) -> Edit:
    names = ("id", "prompt", "subject", "target", "original", "relation", "language")
    values = {name: row[name] for name in names if row[name] is not None}
    return edit_from_record({**values, **{name: from_json(row[name]) for name in _LISTS}})


def from_json(text: str) -> Any:
    """Decode a JSON text of the ledger.

    Raises:
        BrokenFile: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenFile(
            f"the ledger holds {text[:40]!r}, expected JSON: take the last copy of the ledger"
        ) from error


def event_of(row: sqlite3.Row) -> Event:
    """Return the event of a row."""
    values = {name: row[name] for name in ("id", "time", "what", "edit", "author", "reason")}
    return Event(**values, details=from_json(row["details"]))


def build_of(row: sqlite3.Row) -> Build:
    """Return the build of a row that lists its edits."""
    names = ("id", "time", "base", "method", "patch_hash", "path", "seconds")
    values = {name: row[name] for name in names}
    return Build(
        **values, config=from_json(row["config"]), edits=tuple(sorted(from_json(row["edits"])))
    )


def measurement_of(row: sqlite3.Row) -> Measurement:
    """Return the measurement of a row."""
    values = {name: row[name] for name in ("id", "build", "time", "suite")}
    return Measurement(**values, results=from_json(row["results"]))


def solved_of(row: sqlite3.Row) -> Solved:
    """Return the description of a stored value, of a row."""
    names = ("name", "base", "method", "edit", "time", "digest", "size")
    values = {name: row[name] for name in names}
    return Solved(**values, config=from_json(row["config"]), details=from_json(row["details"]))


def fetch(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Entry]:
    """Return the entries of those ids that are there, by id."""
    rows = connection.execute(
        f"{ENTRIES} WHERE id IN (SELECT value FROM json_each(?))", (id_list(ids),)
    )
    return {row["id"]: entry_of(row) for row in rows}


def fetch_all(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Entry]:
    """Return the entries of the ids, in the order of the ids.

    Raises:
        UnknownName: One is not there.
    """
    ids = tuple(dict.fromkeys(ids))
    check_known(connection, ids)
    found = fetch(connection, ids)
    return {one: found[one] for one in ids}


def check_known(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Refuse an id of which there is no edit.

    Raises:
        UnknownName: The first that is not there.
    """
    ids = tuple(ids)
    query = "SELECT id FROM entries WHERE id IN (SELECT value FROM json_each(?))"
    found = {row[0] for row in connection.execute(query, (id_list(ids),))}
    for one in ids:
        if one not in found:
            known = [str(row[0]) for row in connection.execute("SELECT id FROM entries")]
            raise unknown("edit", one, known)


def unknown(kind: str, name: object, known: list[str]) -> UnknownName:
    """Make the error about an unknown id; of many known ones it names only the nearest."""
    if len(known) > 12:
        near = nearest(str(name), known)
        known = [near] if near else sorted(known)[:3]
    return UnknownName(kind, str(name), known)


def id_list(ids: Iterable[str]) -> str:
    """Write ids as a JSON list: one parameter, however many they are."""
    return json.dumps(list(ids))
