"""`Ledger`: the durable list of edits, who asked for them, and what became of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emend.edits import Edit, check_edits
from emend.edits._check import check_text
from emend.errors import InvalidInput
from emend.ledger import _changes, _exchange, _history, _rows, _store
from emend.ledger._changes import Change
from emend.ledger._conflicts import conflicting, normalised
from emend.ledger._records import (
    LIVE,
    STATUSES,
    Build,
    Entry,
    Event,
    Measurement,
    Solved,
    check_note,
    tidy_tags,
    to_json,
)


class Ledger:
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
        self._store = _store.Store(self.path)

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
        _store.create(Path(path))
        ledger = cls(path)
        with ledger._store.writing() as connection:
            _rows.insert_event(connection, _rows.tick(connection), "created")
            if base is not None:
                _history.set_base(connection, base)
        return ledger

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
        """What was told of the base model, or None."""
        with self._store.reading() as connection:
            return _history.base(connection)

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
            supersede: Let the new edits win over active ones that want something else.
            parent: The id of the edit that these are derived from.

        Returns:
            The new entries, in the order given.

        Raises:
            Conflict: Active edits want something else of the same statement, or two of the new.
            InvalidInput: No edits, an id that is there already, a text or status that cannot be
                used, or a parent that was taken out.
            UnknownName: There is no such parent.
        """
        edits = check_edits([edits] if isinstance(edits, Edit) else edits)
        for name, value in (("author", author), ("reason", reason), ("source", source)):
            check_note(name, value)
        tags = tidy_tags(tags)
        if status not in LIVE:
            raise InvalidInput(f"status is {status!r}, expected one of {', '.join(LIVE)}")
        ids = [edit.id for edit in edits]
        with self._store.writing() as connection:
            there = _rows.fetch(connection, ids)
            if there:
                raise _already_there(list(there.values()))
            if parent is not None:
                _rows.fetch_all(connection, [parent])
            change = Change(connection, _rows.tick(connection), author, reason)
            for edit in edits:
                notes = (author, reason, source, tags, change.time, change.time, status)
                _rows.insert_entry(connection, Entry(edit, *notes, parent=parent))
                change.event("added", edit.id, {"status": status})
            _changes.settle(change, ids, supersede)
            return tuple(_rows.fetch_all(connection, ids).values())

    def entry(self, id: str) -> Entry:
        """The entry of an edit.

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
        """The entries, oldest first; of one call of `add` in the order given.

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
            "subject_key = :subject": None if subject is None else normalised(subject),
        }
        wanted = [text for text, value in conditions.items() if value is not None]
        with self._store.reading() as connection:
            rows = connection.execute(
                f"{_rows.ENTRIES} WHERE {' AND '.join(wanted) or '1'} ORDER BY time, number",
                dict(zip(("status", "tag", "author", "subject"), conditions.values(), strict=True)),
            )
            return tuple(_rows.entry_of(row) for row in rows)

    def active(self) -> tuple[Edit, ...]:
        """The edits that a build builds, sorted by id."""
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
        """The history, oldest first; with an id only what is about that edit.

        Raises:
            UnknownName: There is no edit with this id.
        """
        with self._store.reading() as connection:
            if id is not None:
                _rows.fetch_all(connection, [id])
            return _history.log(connection, id)

    def conflicts(self, edits: Iterable[Edit] | None = None) -> tuple[tuple[Edit, Edit], ...]:
        """Pairs that want different targets for one statement.

        One statement is the same subject and relation, where both have a relation, or the same
        full text; compared without regard to case, spacing and the form of Unicode characters.

        Args:
            edits: Edits that may be added; without them the active ones are looked at alone.

        Returns:
            Pairs of an older and a newer edit.
        """
        return conflicting((*self.active(), *(edits or ())))

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
        """
        with other._store.reading() as connection:
            records = _exchange.records_of(connection)
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

    def check(self) -> tuple[str, ...]:
        """What is wrong with the file, one line each; nothing if it is whole."""
        with self._store.reading() as connection:
            return _history.faults(connection)


def _change(connection: Any, ids: tuple[str, ...], author: str, reason: str) -> Change:
    if not ids:
        raise InvalidInput("no ids were given, expected at least one: nothing to change")
    check_note("author", author)
    check_note("reason", reason)
    return Change(connection, _rows.tick(connection), author, reason)


def _sorted(change: Change, ids: set[str]) -> tuple[Entry, ...]:
    return tuple(_rows.fetch_all(change.connection, sorted(ids)).values())


def _already_there(entries: list[Entry]) -> InvalidInput:
    first = entries[0]
    more = f" and {len(entries) - 1} more are" if len(entries) > 1 else " is"
    mend = "restore it" if first.status not in LIVE else "leave it out"
    return InvalidInput(
        f"edit {first.id!r} ({first.status}){more} in the ledger already, expected new ids: "
        f"{mend}, or give the new one an id of its own"
    )
