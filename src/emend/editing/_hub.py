"""Texts of a Hugging Face dataset, by the library `datasets`, which only this needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emend import _identity
from emend.editing._corpus import Source, text_of
from emend.errors import InvalidInput, MissingExtra, first_line


@dataclass(frozen=True)
class HubDataset(Source):
    """One split of a dataset on the hub, or in a directory. It is streamed, not downloaded whole.

    Attributes:
        path: Its name on the hub, or its directory.
        config: Which of its configurations; None for the only one.
        split: Which split.
        field: The column that holds the text.
        revision: Commit, branch or tag; None for the newest. What it names when it is first
            asked for is read and is in the identity.
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

    def _identify(self) -> dict[str, Any]:
        """Content, or name and commit; configuration, split and field."""
        parts = {"form": "dataset", "config": self.config, "split": self.split, "field": self.field}
        if self._is_local:
            return {**parts, "content": _identity.directory_digest(Path(self.path))}
        return {**parts, "name": self.path, "commit": self._commit}

    @property
    def _is_local(self) -> bool:
        return Path(self.path).is_dir()

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`.

        Raises:
            MissingExtra: The library is not installed.
            InvalidInput: There is no such dataset, configuration, split or column.
        """
        library = self._library()
        revision = self.revision if self._is_local else self._commit
        try:
            rows = library.load_dataset(
                self.path, self.config, split=self.split, streaming=True, revision=revision
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unusable(error) from error
        texts = (text_of(row, self.field, f"dataset {self.path}") for row in rows)
        taken = (text for text in texts if text.strip())
        for _ in range(skip):
            next(taken, None)
        return taken

    @cached_property
    def _commit(self) -> str:
        """The commit that the revision names now, and which is read.

        It is asked for once: a branch may move between two questions, and the texts of the one
        commit would be kept as those of the other.
        """
        hub: Any = importlib.import_module("huggingface_hub")
        try:
            return str(hub.HfApi().dataset_info(self.path, revision=self.revision).sha)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error

    def _library(self) -> Any:
        try:
            return importlib.import_module("datasets")
        except ImportError as error:
            raise MissingExtra.of("datasets", "datasets", "read Hugging Face datasets") from error

    def _unusable(self, error: Exception) -> InvalidInput:
        reason = first_line(error)
        return InvalidInput(
            f"dataset {self.path!r} cannot be read ({reason}), expected a file, a directory or "
            "NAME?config=...&split=...: check the name, or the network"
        )
