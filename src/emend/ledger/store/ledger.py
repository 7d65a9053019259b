"""`Ledger`: the durable list of edits, who asked for them, and what became of them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emend.errors import InvalidInput
from emend.ledger.store import _exchange, _history, _rows
from emend.ledger.store._changes import Change
from emend.ledger.store._connection import Store, create_file
from emend.ledger.store._edits import EditsOfLedger
from emend.ledger.store._records import Build, Entry, Measurement, Solved, check_note, to_json


class Ledger(EditsOfLedger):
    """Edits kept in one SQLite file; make one with `create`, open one with `open`.

    Every method that changes something is one transaction: when it returns, the change is on the
    disk and outlives a crash; when it raises, nothing has changed. Several processes may use one
    file, which must lie on a local disk. A ledger is not carried across a fork: open it anew.

    Methods raise `StoreFailure` where the disk is full, the file cannot be written or another
    process writes for too long, and `BrokenFile` where the file is damaged.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store = Store(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.path}"

    @classmethod
    def create(cls, path: str | os.PathLike[str], base: Mapping[str, Any] | None = None) -> Ledger:
        """Make an empty ledger and open it.

        Args:
            path: Where there is no file yet.
            base: Of the model that patches will be built for, as `describe_base` gives it.

        Raises:
            InvalidInput: There is a file, or `base` is not JSON-able.
        """
        if base is not None:
            to_json("base", base)

        def fill(connection: sqlite3.Connection) -> None:
            _rows.insert_event(connection, _rows.tick(connection), "created")
            if base is not None:
                _history.set_base(connection, base)

        create_file(Path(path), fill)
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Ledger:
        """Open a ledger that is there; an older one is brought up to date.

        Raises:
            MissingFile: There is no such file.
            BrokenFile: It is not a ledger, is damaged, or was written by a newer emend.
        """
        return cls(path)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        self._store.close()

    @property
    def base(self) -> dict[str, Any] | None:
        """The description of the base model, or None."""
        with self._store.reading() as connection:
            return _history.base(connection)

    @property
    def version(self) -> int:
        """How many changes of edits the history holds; what was built and measured is none."""
        with self._store.reading() as connection:
            return _history.version(connection)

    def set_base(self, base: Mapping[str, Any]) -> None:
        """Note the base model, where none is noted yet or one with the same hash.

        Raises:
            InvalidInput: A base with another hash is noted, or `base` is not JSON-able.
        """
        to_json("base", base)
        with self._store.writing() as connection:
            noted = _history.base(connection)
            if noted is not None and noted.get("hash") != base.get("hash"):
                raise InvalidInput(
                    f"the ledger is for the base with hash {noted.get('hash')!r}, found "
                    f"{base.get('hash')!r}: make another ledger for it and import this one's export"
                )
            _history.set_base(connection, base)

    def check(self) -> tuple[str, ...]:
        """List what is wrong with the file, one line each; nothing if it is whole."""
        with self._store.reading() as connection:
            return _history.faults(connection)

    def keep_values(
        self,
        base: str,
        method: str,
        values: Mapping[str, bytes],
        *,
        config: Mapping[str, Any] | None = None,
        edits: Mapping[str, str] | None = None,
        details: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> int:
        """Keep what was solved for. What is kept under a name already stays as it is.

        Args:
            base: Hash of the base model's weights.
            method: Name of the method.
            values: Bytes by name, which must be a fingerprint of all that they depend on.
            config: Settings of the method, JSON-able.
            edits: By name, the id of the edit that the value is of.
            details: By name, what else is to be kept, e.g. the lookup token; JSON-able.

        Returns:
            How many were new.

        Raises:
            InvalidInput: A value is not bytes, or something is not JSON-able.
            UnknownName: There is no edit with such an id.
        """
        rows = _history.solved_rows(base, method, values, config or {}, edits or {}, details or {})
        with self._store.writing() as connection:
            return _history.keep(connection, rows, (edits or {}).values())

    def values(
        self, base: str, method: str | None = None, names: Iterable[str] | None = None
    ) -> dict[str, bytes]:
        """Return the values solved for on a base, by name.

        Args:
            base: Hash of the base model's weights.
            method: Only what was solved for this method.
            names: Only these, as far as they are there.

        Raises:
            BrokenFile: The bytes of one are not those that were kept.
        """
        with self._store.reading() as connection:
            return _history.values(connection, base, method, names)

    def solved(self, id: str | None = None) -> tuple[Solved, ...]:
        """Describe the stored values, without their bytes; with an id those of that edit."""
        with self._store.reading() as connection:
            return _history.solved(connection, id)

    def add_build(self, build: Build, *, author: str = "") -> Build:
        """Note a build; give it back with its id and time.

        Raises:
            InvalidInput: A field cannot be used.
            UnknownName: There is no edit with such an id.
        """
        _history.check_build(build)
        check_note("author", author)
        with self._store.writing() as connection:
            return _history.add_build(connection, build, author)

    def builds(self) -> tuple[Build, ...]:
        """Return the builds, oldest first."""
        with self._store.reading() as connection:
            return _history.builds(connection)

    def add_measurement(
        self, build: str, suite: str, results: Mapping[str, Any], *, author: str = ""
    ) -> Measurement:
        """Note what was measured of a build.

        Raises:
            InvalidInput: The results are not JSON-able (they hold NaN, say).
            UnknownName: There is no build with this id.
        """
        check_note("suite", suite)
        check_note("author", author)
        text = to_json("results", results)
        with self._store.writing() as connection:
            return _history.add_measurement(connection, build, suite, json.loads(text), author)

    def measurements(self, build: str | None = None) -> tuple[Measurement, ...]:
        """Return the measurements, oldest first; with an id only those of that build.

        Raises:
            UnknownName: There is no build with this id.
        """
        with self._store.reading() as connection:
            return _history.measurements(connection, build)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all entries and the history to a JSONL file; the number of entries.

        What was solved, built and measured stays here: it can be made again from the edits.

        Raises:
            InvalidInput: The path does not end in .jsonl or is a directory.
            StoreFailure: The file cannot be written.
        """
        with self._store.reading() as connection:
            records = _exchange.records_of(connection)
        return _exchange.write(Path(path), records)

    def import_file(
        self, path: str | os.PathLike[str], *, supersede: bool = False, author: str = ""
    ) -> tuple[Entry, ...]:
        """Take in a file that `export` wrote, all of it or nothing.

        Entries that are here already with the same edit become one; the status is that which was
        set last.

        Args:
            path: The file.
            supersede: Of conflicting active edits let the one win that became active last.
            author: Who does it.

        Returns:
            The entries that are new here, oldest first.

        Raises:
            MissingFile: There is no such file.
            BrokenFile: Lines of it cannot be used; there is a line about each.
            Conflict: Active edits want different things, or one id has two different edits.
        """
        records = _exchange.read(Path(path))
        return self._join(records, supersede, author, "imported", Path(path).name)

    def merge(
        self, other: Ledger, *, supersede: bool = False, author: str = ""
    ) -> tuple[Entry, ...]:
        """Take in another ledger, all of it or nothing; it stays as it is.

        Entries become one as with `import_file`; what was solved, built and measured comes too.

        Args:
            other: The other ledger.
            supersede: Of conflicting active edits let the one win that became active last.
            author: Who does it.

        Returns:
            The entries that are new here, oldest first.

        Raises:
            Conflict: Active edits want different things, or one id has two different edits.
            BrokenFile: The other ledger holds what no ledger of ours writes.
        """
        with other._store.reading() as connection:
            records = _exchange.checked(other.path, _exchange.records_of(connection))
            made = _history.made(connection)
        return self._join(records, supersede, author, "merged", other.path.name, made)

    def _join(
        self,
        records: _exchange.Records,
        supersede: bool,
        author: str,
        what: str,
        name: str,
        made: _history.Made | None = None,
    ) -> tuple[Entry, ...]:
        check_note("author", author)
        with self._store.writing() as connection:
            change = Change(connection, _rows.tick(connection), author)
            new = _exchange.join(change, records, supersede)
            if made is not None:
                _history.put_made(connection, made)
            details = {"from": name, "new": len(new)}
            _rows.insert_event(connection, change.time, what, author=author, details=details)
            return tuple(_rows.fetch_all(connection, new).values())
