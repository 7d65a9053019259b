"""The file of a ledger: made whole, opened with care, written in transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from emend._io import clear_left, make_parent, name_beside, sync
from emend.errors import BrokenFile, InvalidInput, MissingFile, StoreFailure
from emend.ledger.store._schema import APPLICATION_ID, MIGRATIONS, VERSION

PATIENCE = 15.0
"""Seconds for which a write waits on another process that is writing."""

_MAGIC = b"SQLite format 3\x00"
_OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables
_LEFT_BESIDE = ("-wal", "-shm", "-journal")
_MALFORMED = ("malformed", "not a database", "unsupported file format", "malformed database")
_FAILURES = (
    ("full", "there is no room left on the disk for {}: free some; what it held is unharmed"),
    ("readonly", "{} cannot be written, expected a writable file in a writable directory"),
    ("locked", "{} is being written by another process for too long: try again when it is done"),
    ("too big", "a value is too big for {}, expected less than a gigabyte: split it"),
    ("disk I/O", "the disk of {} failed or is full: free some room; what it held is unharmed"),
    ("closed", "{} was closed: open it again"),
    ("unable to open", "cannot open {}: expected a file that can be read and written"),
)


class Store:
    """One connection to a ledger's file, used by one thread at a time.

    Args:
        path: The file, which must be a ledger.

    Raises:
        MissingFile: There is no such file.
        BrokenFile: It is not a ledger, is damaged, or was written by a newer emend.
        StoreFailure: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_file(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        with _explained(path):
            self.connection = _connect(path)
            try:
                self._migrate()
                _check_tables(self.connection, path)
            except BaseException:
                self.connection.close()
                raise

    def close(self) -> None:
        """Close the connection. Closing twice is no error."""
        with self._lock:
            self.connection.close()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection, None, None]:
        """Read one state of the ledger, whatever others write meanwhile."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection, None, None]:
        """Write in one transaction: all of the block's changes are there when it ends, or none.

        It takes the write lock at once (`BEGIN IMMEDIATE`): a read that turns into a write after
        another process committed would fail without waiting.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            version = self._version()
            if version != VERSION:  # another process has brought it up to date meanwhile
                raise _newer(self.path, version)
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Generator[sqlite3.Connection, None, None]:
        if os.getpid() != self._process:  # its locks did not come along
            raise StoreFailure(
                f"{self.path} was opened by another process, expected this one: open it again"
            )
        with self._lock, _explained(self.path):
            self.connection.execute(begin)
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back where the disk was full.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def _migrate(self) -> None:
        if self._version() == VERSION:
            return
        with self._transaction("BEGIN IMMEDIATE") as connection:
            found = self._version()  # again: another process may have migrated meanwhile
            if found > VERSION:
                raise _newer(self.path, found)
            for version in range(found, VERSION):
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION:d}")

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])


def create_file(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make a ledger, whole or not at all.

    Args:
        path: Where there is no file yet.
        fill: Puts in what a new ledger holds.

    Raises:
        InvalidInput: The file is there already, or its directory cannot be made.
        StoreFailure: It cannot be written.
    """
    for one in (path, *(path.with_name(path.name + suffix) for suffix in _LEFT_BESIDE)):
        if one.exists() or one.is_symlink():
            raise InvalidInput(f"{one} is there already, expected a new file: choose another path")
    make_parent(path)
    aside = name_beside(path)
    try:
        with _explained(path):
            _write(aside, fill)
        clear_left(path, aside)
        _link(aside, path)
    finally:
        for suffix in ("", *_LEFT_BESIDE):
            aside.with_name(aside.name + suffix).unlink(missing_ok=True)
    sync(path.parent)


def _link(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)  # unlike a rename, this never replaces a file
    except FileExistsError as error:
        raise InvalidInput(f"{path} is there already, expected a new file") from error
    except OSError as error:
        raise StoreFailure(
            f"cannot make {path} ({error.strerror}): choose a path on a local disk"
        ) from error


def _write(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statements in MIGRATIONS:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        connection.execute(f"PRAGMA user_version = {VERSION:d}")
        fill(connection)
        connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreFailure(
            f"Python's SQLite is {sqlite3.sqlite_version}, expected 3.37 or newer for ledgers: "
            "use a newer Python"
        )
    # Opened by URI so that a file that has just gone is not made anew and empty.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal" and os.access(
        path, os.W_OK
    ):
        connection.execute("PRAGMA journal_mode = WAL")  # a copy by VACUUM INTO has lost it
    return connection


def _check_file(path: Path) -> None:
    """Refuse what is not a ledger, by its header, before SQLite touches it."""
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a ledger: name a file in it")
    if not path.exists():
        raise MissingFile(
            f"there is no ledger {path}: check the path, or make one with `emend ledger init`"
        )
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise StoreFailure(
            f"cannot read {path} ({error.strerror}): expected a readable file"
        ) from error
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise BrokenFile(f"{path} is not a SQLite file, expected a ledger: check the path")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise BrokenFile(
            f"{path} is a SQLite file of another program, expected a ledger: check the path"
        )
    version = int.from_bytes(header[60:64], "big")
    if version > VERSION:
        raise _newer(path, version)


def _newer(path: Path, version: int) -> BrokenFile:
    return BrokenFile(
        f"{path} is a ledger of version {version}, expected at most {VERSION}: "
        "it was written by a newer emend; upgrade emend"
    )


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose tables differ from ours, or that has triggers or views too.

    A ledger may come from someone else, and a trigger would run what they wrote.
    """
    with closing(sqlite3.connect(":memory:")) as fresh:
        for statements in MIGRATIONS:
            for statement in statements:
                fresh.execute(statement)
        expected = _tables(fresh)
    found = _tables(connection)
    if found != expected:
        names = sorted({(kind, name) for kind, name, _ in found ^ expected})
        odd = ", ".join(f"{kind} {name!r}" for kind, name in names[:3])
        raise BrokenFile(f"{path} differs from a ledger in {odd}: take a copy that is whole")


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*'"
    )
    return {(str(kind), str(name), str(sql)) for kind, name, sql in rows}


@contextmanager
def _explained(path: Path) -> Generator[None, None, None]:
    """Translate errors of SQLite to one line with the remedy."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a text holds half of a surrogate pair, expected text: write the character itself"
        ) from error
    except sqlite3.Error as error:
        said = str(error)
        if any(word in said for word in _MALFORMED):
            raise BrokenFile(
                f"{path} is damaged ({said}), expected a ledger: take the last copy that is whole"
            ) from error
        for word, message in _FAILURES:
            if word in said:
                raise StoreFailure(message.format(path)) from error
        raise StoreFailure(
            f"{path} cannot be used ({said}): check the file and its disk"
        ) from error
