"""Sources of text: given texts, files, the lab. Documents are streamed, never all in memory."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO, cast

from emend import _identity, lab
from emend.errors import BrokenFile, InvalidInput

LONGEST = 1 << 16
"""Characters after which a document of a text file is cut (at a space or line end, if there is
one), so that any file can be streamed."""

LAB_TEXTS = 4000
"""Documents of the lab's corpus; more than enough for its models."""


class Source(ABC):
    """Texts that can be read again from any document on."""

    packed: bool = True
    """Whether documents are joined and cut into windows; if not, each is a row of its own."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which a patch records it."""

    def __str__(self) -> str:
        return self.name

    @property
    def identity(self) -> str:
        """A digest of the texts themselves: name and path do not enter.

        It is computed at each call, since a file may be rewritten.
        """
        return _identity.key("text source", **self._identify())

    @abstractmethod
    def documents(self, skip: int = 0) -> Iterator[str]:
        """Yield the documents in order, without the first ``skip``; empty ones are left out."""

    @abstractmethod
    def _identify(self) -> dict[str, Any]:
        """Return all that determines the documents, for `_identity.key`."""


@dataclass(frozen=True)
class Texts(Source):
    """Texts given as strings, each a row of its own, as in the published statistics.

    Attributes:
        texts: The texts.
        packed: Join them and cut windows, as for a corpus.
    """

    texts: Sequence[str]
    packed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))  # a list of the same texts is equal

    @property
    def name(self) -> str:
        """See `Source`."""
        return "given texts"

    def _identify(self) -> dict[str, Any]:
        return {"form": "texts", "texts": _identity.texts_digest(self.texts)}

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        return islice((text for text in self.texts if text.strip()), skip, None)


@dataclass(frozen=True)
class LabCorpus(Source):
    """The lab's corpus, drawn with seeds that no training step used."""

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"lab corpus, {LAB_TEXTS} documents"

    def _identify(self) -> dict[str, Any]:
        return {"form": "texts", "texts": _identity.texts_digest(lab.corpus_texts(LAB_TEXTS))}

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        return iter(lab.corpus_texts(LAB_TEXTS)[skip:])


@dataclass(frozen=True)
class TextFile(Source):
    """A text file in UTF-8, with empty lines between documents.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.path.name

    def _identify(self) -> dict[str, Any]:
        return {"form": "text file", "content": _file_digest(self.path)}

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        return islice(self._documents(), skip, None)

    def _documents(self) -> Iterator[str]:
        lines: list[str] = []
        size = 0
        for line in _pieces(self.path):
            if line.strip():
                lines.append(line)
                size += len(line)
            if lines and (not line.strip() or size >= LONGEST):
                yield "".join(lines).rstrip("\n")
                lines, size = [], 0
        if lines:
            yield "".join(lines).rstrip("\n")


@dataclass(frozen=True)
class JsonLines(Source):
    """A file with one JSON object per line.

    Attributes:
        path: The file.
        field: Name of the field that holds the text.
    """

    path: Path
    field: str = "text"

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"{self.path.name}, field {self.field}"

    def _identify(self) -> dict[str, Any]:
        content = _file_digest(self.path)
        return {"form": "JSON lines", "content": content, "field": self.field}

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        return islice(self._documents(), skip, None)

    def _documents(self) -> Iterator[str]:
        for number, line in _lines(self.path):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line)
            except ValueError as error:
                raise BrokenFile(
                    f"{self.path}:{number}: not JSON, expected one object per line: fix that line"
                ) from error
            text = text_of(row, self.field, f"{self.path}:{number}")
            if text.strip():
                yield text


@dataclass(frozen=True)
class Several(Source):
    """Several sources, read one after another as one corpus.

    Attributes:
        sources: At least two. All documents are joined, also those of given texts.
    """

    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """See `Source`."""
        return "; ".join(source.name for source in self.sources)

    def _identify(self) -> dict[str, Any]:
        return {"form": "several", "sources": [source.identity for source in self.sources]}

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        return islice(chain.from_iterable(s.documents() for s in self.sources), skip, None)


def text_of(row: Any, field: str, where: str) -> str:
    """Return the text in one field of a row.

    Raises:
        InvalidInput: The field is missing or holds no text.
    """
    fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    text = fields.get(field)
    if isinstance(text, str):
        return text
    found = f"fields {', '.join(fields)}" if fields else "no fields"
    raise InvalidInput(
        f"{where} has no text in field {field!r} (found {found}): name one by '?field=NAME'"
    )


def _file_digest(path: Path) -> str:
    try:
        return _identity.file_digest(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"{path} cannot be read ({error.strerror}): choose another file")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers."""
    with _opened(path) as file:
        yield from enumerate(file, 1)


def _pieces(path: Path) -> Iterator[str]:
    """Yield the lines of a file; a line longer than `LONGEST` comes in pieces."""
    with _opened(path) as file:
        rest = ""
        while piece := rest + file.readline(LONGEST - len(rest)):
            is_cut = len(piece) == LONGEST and not piece.endswith("\n")
            end = (piece.rfind(" ") + 1 if is_cut else 0) or len(piece)
            rest = piece[end:]
            yield piece[:end]


@contextmanager
def _opened(path: Path) -> Generator[TextIO, None, None]:
    try:
        with path.open(encoding="utf-8") as file:
            yield file
    except UnicodeDecodeError as error:
        raise BrokenFile(f"{path} is not UTF-8 text ({error.reason}): convert it") from error
    except OSError as error:
        raise _unreadable(path, error) from error
