"""`Ledger`: the durable list of edits, who asked for them, and what became of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emend.ledger import _exchange, _history, _rows
from emend.ledger._changes import Change
from emend.ledger._edits import LedgerOfEdits
from emend.ledger._records import Build, Entry, Measurement, Solved, check_note, to_json


class Ledger(LedgerOfEdits):
    """Edits kept in one SQLite file; make one with `create`, open one with `open`.

    Every method that changes something is one transaction: when it returns, the change is on the
    disk and outlives a crash; when it raises, nothing has changed. Several processes may use one
    file, which must lie on a local disk. A ledger is not carried across a fork: open it anew.

    Methods raise `StoreFailure` where the disk is full, the file cannot be written or another
    process writes for too long, and `BrokenFile` where the file is damaged.

    Attributes:
        path: The file.
    """

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
        """What was solved for on a base, by name.

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
        """What is known of the kept values, without their bytes; with an id of that edit's."""
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
        """The builds, oldest first."""
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
        """What was measured, oldest first; with an id only of that build.

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
