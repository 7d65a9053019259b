"""What was done with the edits: the log, what was solved, builds and measurements."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from emend._validate import check_text
from emend.errors import BrokenFile, InvalidInput
from emend.ledger.store._records import (
    LONGEST_REASON,
    Build,
    Event,
    Measurement,
    Solved,
    check_note,
    to_json,
)
from emend.ledger.store._rows import (
    build_of,
    check_known,
    event_of,
    from_json,
    id_list,
    insert_event,
    measurement_of,
    new_id,
    solved_of,
    tick,
    unknown,
)

_SOLVED = ("base", "name", "method", "edit", "config", "details", "digest", "data")
_BUILDS = """
    SELECT builds.*, (
        SELECT json_group_array(edit) FROM build_edits WHERE build = builds.id
    ) AS edits FROM builds ORDER BY time, number
"""
_PUT = {
    "solved": (*_SOLVED, "time"),
    "builds": ("id", "time", "base", "method", "config", "patch_hash", "path", "seconds"),
    "build_edits": ("build", "edit"),
    "measurements": ("id", "build", "time", "suite", "results"),
}


@dataclass(frozen=True)
class Made:
    """Rows of what was solved, built and measured, by table."""

    rows: Mapping[str, list[tuple[Any, ...]]]


def base(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Return the description of the base model, or None."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'base'").fetchone()
    return None if row is None else from_json(row[0])


def set_base(connection: sqlite3.Connection, description: Mapping[str, Any]) -> None:
    """Note the base model."""
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('base', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (to_json("base", description),),
    )


def version(connection: sqlite3.Connection) -> int:
    """Count the changes of edits."""
    row = connection.execute(
        "SELECT COUNT(*) FROM events WHERE what NOT IN ('noted', 'built', 'measured')"
    ).fetchone()
    return int(row[0])


def log(connection: sqlite3.Connection, edit: str | None) -> tuple[Event, ...]:
    """Return the history, oldest first."""
    where, values = _only("edit", edit)
    rows = connection.execute(f"SELECT * FROM events{where} ORDER BY time, number", values)
    return tuple(event_of(row) for row in rows)


def solved_rows(
    base: str,
    method: str,
    values: Mapping[str, bytes],
    config: Mapping[str, Any],
    edits: Mapping[str, str],
    details: Mapping[str, Mapping[str, Any]],
) -> list[tuple[Any, ...]]:
    """Make the rows that store values, without the time.

    Raises:
        InvalidInput: A value is not bytes, or something is not JSON-able.
    """
    check_text("base", base)
    check_text("method", method)
    settings = to_json("config", config)
    for name in (*edits, *details):
        if name not in values:
            raise InvalidInput(f"no value is named {name!r}, expected one of the values given")
    rows: list[tuple[Any, ...]] = []
    for name, data in values.items():
        check_text("name", name)
        if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"value {name!r} is a {type(data).__name__}, expected bytes")
        more = to_json("details", details.get(name, {}))
        digest = hashlib.sha256(data).hexdigest()
        rows.append((base, name, method, edits.get(name), settings, more, digest, data))
    return rows


def keep(connection: sqlite3.Connection, rows: list[tuple[Any, ...]], edits: Iterable[str]) -> int:
    """Put values in; those there stay. How many were new."""
    check_known(connection, edits)
    time = tick(connection)
    before = connection.total_changes
    _put(connection, "solved", [(*row, time) for row in rows])
    return connection.total_changes - before


def values(
    connection: sqlite3.Connection, base: str, method: str | None, names: Iterable[str] | None
) -> dict[str, bytes]:
    """Return values by name, in the order of their names.

    Raises:
        BrokenFile: The bytes of one are not those that were kept.
    """
    rows = connection.execute(
        "SELECT name, digest, data FROM solved WHERE base = :base "
        "AND (:method IS NULL OR method = :method) "
        "AND (:names IS NULL OR name IN (SELECT value FROM json_each(:names))) ORDER BY name",
        {"base": base, "method": method, "names": None if names is None else id_list(names)},
    )
    found: dict[str, bytes] = {}
    for name, digest, data in rows:
        if hashlib.sha256(data).hexdigest() != digest:
            raise _other_bytes(name)
        found[name] = data
    return found


def _other_bytes(name: str) -> BrokenFile:
    return BrokenFile(
        f"value {name!r} has other bytes than were kept: take the last copy of the ledger"
    )


def solved(connection: sqlite3.Connection, edit: str | None) -> tuple[Solved, ...]:
    """Describe the stored values, oldest first."""
    where, values = _only("edit", edit)
    rows = connection.execute(
        "SELECT base, name, method, edit, config, details, time, digest, length(data) AS size "
        f"FROM solved{where} ORDER BY time, name",
        values,
    )
    return tuple(solved_of(row) for row in rows)


def check_build(build: Build) -> None:
    """Refuse a build that cannot be kept.

    Raises:
        InvalidInput: It has an id already, or a field cannot be used.
    """
    if build.id or build.time:
        raise InvalidInput(f"build {build.id!r} has an id or a time, expected none: it gets them")
    for name in ("base", "method", "patch_hash"):
        check_text(name, getattr(build, name))
    check_note("path", build.path, LONGEST_REASON)
    to_json("config", build.config)
    if not 0 <= build.seconds < float("inf"):
        raise InvalidInput(f"seconds is {build.seconds}, expected a time that has passed")


def add_build(connection: sqlite3.Connection, build: Build, author: str) -> Build:
    """Put a build in; give it back with its id and time."""
    check_known(connection, build.edits)
    edits = tuple(sorted(set(build.edits)))
    build = replace(build, id=f"build-{new_id()[:12]}", time=tick(connection), edits=edits)
    text = to_json("config", build.config)
    row = (build.id, build.time, build.base, build.method, text)
    _put(connection, "builds", [(*row, build.patch_hash, build.path, float(build.seconds))])
    _put(connection, "build_edits", [(build.id, edit) for edit in edits])
    details = {"build": build.id, "patch_hash": build.patch_hash, "edits": len(edits)}
    insert_event(connection, build.time, "built", author=author, details=details)
    return build


def builds(connection: sqlite3.Connection) -> tuple[Build, ...]:
    """Return the builds, oldest first."""
    return tuple(build_of(row) for row in connection.execute(_BUILDS))


def add_measurement(
    connection: sqlite3.Connection,
    build: str,
    suite: str,
    results: Mapping[str, Any],
    author: str,
) -> Measurement:
    """Put a measurement in."""
    _check_build(connection, build)
    found = Measurement(new_id()[:12], build, tick(connection), suite, results)
    row = (found.id, build, found.time, suite, to_json("results", results))
    _put(connection, "measurements", [row])
    details = {"build": build, "suite": suite}
    insert_event(connection, found.time, "measured", author=author, details=details)
    return found


def measurements(connection: sqlite3.Connection, build: str | None) -> tuple[Measurement, ...]:
    """Return measurements, oldest first."""
    if build is not None:
        _check_build(connection, build)
    where, values = _only("build", build)
    rows = connection.execute(f"SELECT * FROM measurements{where} ORDER BY time, number", values)
    return tuple(measurement_of(row) for row in rows)


def made(connection: sqlite3.Connection) -> Made:
    """Return all rows of what was solved, built and measured.

    Raises:
        BrokenFile: One holds what no ledger of ours writes.
    """
    solved(connection, None)
    builds(connection)
    measurements(connection, None)
    for name in _changed(connection):
        raise _other_bytes(name)
    return Made(
        {
            table: [
                tuple(row)
                for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}")
            ]
            for table, columns in _PUT.items()
        }
    )


def put_made(connection: sqlite3.Connection, made: Made) -> None:
    """Put in what another ledger solved, built and measured; what is there stays."""
    for table, rows in made.rows.items():
        _put(connection, table, rows)


def faults(connection: sqlite3.Connection) -> tuple[str, ...]:
    """List what is wrong with the file, one line each."""
    found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    found += [
        f"row {row[1]} of {row[0]} names something in {row[2]} that is not there"
        for row in connection.execute("PRAGMA foreign_key_check")
    ]
    found += [f"value {name!r} has other bytes than were kept" for name in _changed(connection)]
    return tuple(found)


def _changed(connection: sqlite3.Connection) -> list[str]:
    """Return names of values whose bytes differ from what was stored."""
    return [
        name
        for name, digest, data in connection.execute("SELECT name, digest, data FROM solved")
        if hashlib.sha256(data).hexdigest() != digest
    ]


def _put(connection: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    columns = _PUT[table]
    connection.executemany(
        f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) "  # names of ours
        f"VALUES ({', '.join('?' * len(columns))})",
        rows,
    )


def _only(column: str, value: str | None) -> tuple[str, tuple[str, ...]]:
    """Write a condition on a column of ours, if there is a value, and its parameters."""
    return ("", ()) if value is None else (f" WHERE {column} = ?", (value,))


def _check_build(connection: sqlite3.Connection, build: str) -> None:
    known = [str(row[0]) for row in connection.execute("SELECT id FROM builds")]
    if build not in known:
        raise unknown("build", build, known)
