"""A ledger as a file: made, opened, closed, looked over."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from emend.errors import InvalidInput
from emend.ledger import _history, _rows, _store
from emend.ledger._records import to_json

T = TypeVar("T", bound="LedgerFile")


class LedgerFile:
    """The file of a ledger.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store = _store.Store(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.path}"

    @classmethod
    def create(
        cls: type[T], path: str | os.PathLike[str], base: Mapping[str, Any] | None = None
    ) -> T:
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

        _store.create(Path(path), fill)
        return cls(path)

    @classmethod
    def open(cls: type[T], path: str | os.PathLike[str]) -> T:
        """Open a ledger that is there; an older one is brought up to date.

        Raises:
            MissingFile: There is no such file.
            BrokenFile: It is not a ledger, is damaged, or was written by a newer emend.
        """
        return cls(path)

    def __enter__(self: T) -> T:
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

    def check(self) -> tuple[str, ...]:
        """What is wrong with the file, one line each; nothing if it is whole."""
        with self._store.reading() as connection:
            return _history.faults(connection)
