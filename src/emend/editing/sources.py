"""Turn what a user gives as texts into a `Source`.

`as_source` decides by type: a `str` is the name of a file or dataset, a `Path` is a file, and a
list or tuple of `str` holds the texts themselves.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import parse_qsl

from emend import _identity
from emend._settings import Reads
from emend.editing.samples import OwnSamples, own_samples
from emend.editing.texts import (
    LAB_TEXTS,
    JsonLines,
    LabCorpus,
    Several,
    Source,
    TextFile,
    Texts,
    text_of,
)
from emend.errors import InvalidInput, MissingExtra, MissingFile, UnknownName, first_line
from emend.models import ModelView


@dataclass(frozen=True)
class HubDataset(Source):
    """One split of a dataset on the hub or in a directory, streamed by the library `datasets`.

    Attributes:
        path: Name on the hub, or directory.
        config: Configuration; None for the only one.
        split: Split.
        field: Column that holds the text.
        revision: Commit, branch or tag; None for the newest. It is resolved to a commit once, at
            first use; that commit is read and enters the identity.
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
        """Return content (or name and commit), configuration, split and field."""
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
            InvalidInput: The dataset, configuration, split or column does not exist.
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
        """The commit that the revision names.

        It is looked up once: a branch may move between two look-ups, and the texts of one commit
        would be cached as those of the other.
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


LAB = "lab"
JSON = (".jsonl", ".ndjson", ".json")
TEXT = (".txt", ".text", ".md")
OPTIONS = ("config", "split", "field", "revision")


def source_named(name: str) -> Source:
    """Return the texts that a name stands for.

    Args:
        name: "lab" for the lab's corpus; the path of a text file (with empty lines between
            documents) or of a JSONL (field ``text``, or ``notes.jsonl?field=body``); else a
            Hugging Face dataset on the hub or in a directory, such as
            ``Salesforce/wikitext?config=wikitext-103-raw-v1&split=train&field=text``.

    Raises:
        MissingFile: The path does not exist.
        UnknownName: An option after "?" is unknown.
        InvalidInput: The name is empty, or a file is given an option that it does not have.
    """
    place, _, said = name.partition("?")
    options = dict(parse_qsl(said))
    for option in options:
        if option not in OPTIONS:
            raise UnknownName("option of texts", option, OPTIONS)
    path = Path(place).expanduser()
    if not place.strip():
        raise InvalidInput("the name of the texts is empty: give a file or a dataset")
    if place == LAB and not path.exists():
        return LabCorpus()
    if path.exists() or _looks_like_a_path(place, path):
        return file_source(path, options)
    return HubDataset(place, **options)


def file_source(path: str | os.PathLike[str], options: dict[str, str] | None = None) -> Source:
    """Return the texts of a file, or of a dataset in a directory.

    Args:
        path: A text file, a file of JSON lines, or a directory.
        options: Options that follow "?" in a name; see `source_named`.

    Raises:
        MissingFile: The path does not exist.
        InvalidInput: A file is given an option that it does not have.
    """
    place, options = Path(path).expanduser(), options or {}
    if place.is_dir():
        return HubDataset(str(place), **options)
    if not place.is_file():
        raise MissingFile(f"there is no file {place}: give a text file, a JSONL or a dataset")
    is_json = place.suffix in JSON
    useless = [option for option in options if not (is_json and option == "field")]
    if useless:
        raise InvalidInput(f"the file {place} has no option {useless[0]!r}: leave it out")
    return JsonLines(place, **options) if is_json else TextFile(place)


def _looks_like_a_path(place: str, path: Path) -> bool:
    # The hub's names are "name" or "owner/name".
    return path.suffix in JSON + TEXT or place[0] in "./~" or place.count("/") > 1


Given = str | os.PathLike[str] | Source | Sequence[str] | Sequence[os.PathLike[str] | Source]
"""Input that `as_source` takes."""

_WORDS = "a file or dataset by its name, files as Paths, or a list of texts"


def as_source(texts: Given) -> Source:
    """Make one source from texts, files, names or sources.

    Args:
        texts: A ``str`` is a name (see `source_named`) and a ``Path`` a file. An iterable of
            ``str`` holds the texts themselves; one of ``Path`` or `Source` is read one after
            another. A `Source` is returned as it is.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: The type is none of these, or texts and files are mixed.
    """
    if isinstance(texts, Source):
        return texts
    if isinstance(texts, str):
        return source_named(texts)
    if isinstance(texts, os.PathLike):
        return file_source(texts)
    given: Any = texts
    if not isinstance(given, Iterable) or isinstance(given, (bytes, dict)):
        kind = type(cast(Any, given)).__name__
        raise InvalidInput(f"texts are a {kind}, expected {_WORDS}: give one of these")
    parts = tuple(cast("Iterable[Any]", given))
    if all(isinstance(part, str) for part in parts):
        return Texts(parts)
    strange = next((p for p in parts if not isinstance(p, (os.PathLike, Source))), None)
    if strange is not None:
        raise InvalidInput(
            f"texts hold a {type(strange).__name__} among files, expected texts alone or files "
            "alone: give texts as a list of str, and files as a list of Path"
        )
    return joined(as_source(part) for part in parts)


def sources_named(names: Sequence[str]) -> Source:
    """Make one source from several names, read one after another; see `source_named`.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: A name is empty or cannot be understood.
    """
    return joined(source_named(name) for name in names)


def joined(sources: Iterable[Source]) -> Source:
    """Chain several sources; a single one is returned as it is."""
    parts = tuple(sources)
    return parts[0] if len(parts) == 1 else Several(parts)


def texts_for(view: ModelView, tokenizer: Any, texts: Given | None) -> Source:
    """Return the given texts; by default the lab's for its models, else the model's own samples.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: See `as_source`. None takes the lab's corpus for a model of the lab, and the model's
            own samples for any other; an empty list takes own samples for every model.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: The texts cannot be understood.
    """
    if texts is None and is_lab_model(view.model):
        return LabCorpus()
    source = None if texts is None else as_source(texts)
    if source is None or (isinstance(source, Texts) and not source.texts):
        return own_samples(view, tokenizer)
    return source


def is_lab_model(model: Any) -> bool:
    """Return whether a model was trained on the lab's corpus: its ``config.json`` says so."""
    own = getattr(getattr(model, "config", None), "emend", None)
    return isinstance(own, dict) and "lab" in own


TextsSetting = Annotated[Source, Reads(_WORDS, given=as_source, named=sources_named)]
"""The setting `texts` of a method, converted to a `Source` when it is checked."""


__all__ = [
    "LAB_TEXTS",
    "Given",
    "HubDataset",
    "JsonLines",
    "LabCorpus",
    "OwnSamples",
    "Several",
    "Source",
    "TextFile",
    "Texts",
    "TextsSetting",
    "as_source",
    "is_lab_model",
    "own_samples",
    "source_named",
    "sources_named",
    "texts_for",
]
