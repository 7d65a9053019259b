"""Texts of a Hugging Face dataset, by the library `datasets`, which only this needs."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend.errors import InvalidInput, MissingExtra
from emend.keyvalue._corpus import Source, file_hash, text_of


@dataclass(frozen=True)
class HubDataset(Source):
    """One split of a dataset on the hub, or in a directory. It is streamed, not downloaded whole.

    Attributes:
        path: Its name on the hub, or its directory.
        config: Which of its configurations; None for the only one.
        split: Which split.
        field: The column that holds the text.
        revision: Commit, branch or tag; None for the newest.
    """

    path: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    revision: str | None = None

    @property
    def name(self) -> str:
        """See `Source`."""
        parts = [Path(self.path).name if Path(self.path).is_dir() else self.path]
        parts += [part for part in (self.config, self.split, self.revision) if part]
        return " ".join(parts) + f", field {self.field}"

    def _identify(self) -> str:
        """Name or content, configuration, split, field, and the revision that is read."""
        parts = [self.config, self.split, self.field]
        if Path(self.path).is_dir():
            files = sorted(file for file in Path(self.path).rglob("*") if file.is_file())
            digest = hashlib.sha256("".join(file_hash(file) for file in files).encode())
            return "|".join(map(str, [digest.hexdigest()[:16], *parts]))
        return "|".join(map(str, [self.path, *parts, self._commit()]))

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`.

        Raises:
            MissingExtra: The library is not installed.
            InvalidInput: There is no such dataset, configuration, split or column.
        """
        rows = self._asked("load_dataset", split=self.split, streaming=True, revision=self.revision)
        texts = (text_of(row, self.field, f"dataset {self.path}") for row in rows)
        taken = (text for text in texts if text.strip())
        for _ in range(skip):
            next(taken, None)
        return taken

    def _commit(self) -> str:
        """The commit that the revision names now, so that a cache does not outlive a change."""
        hub: Any = importlib.import_module("huggingface_hub")
        try:
            return str(hub.HfApi().dataset_info(self.path, revision=self.revision).sha)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error

    def _asked(self, function: str, **options: Any) -> Any:
        try:
            datasets: Any = importlib.import_module("datasets")
        except ImportError as error:
            raise MissingExtra.of("datasets", "datasets", "read Hugging Face datasets") from error
        try:
            return getattr(datasets, function)(self.path, self.config, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> InvalidInput:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return InvalidInput(
            f"dataset {self.path!r} cannot be read ({reason}), expected a file, a directory or "
            "NAME?config=...&split=...: check the name, or the network"
        )
