"""What can go wrong that the user can fix.

Every error here has one readable line: what was found, what was expected and how to fix it.
Each also subclasses the builtin it is nearest to, so that `except ValueError` still works.
The command line prints that line and exits with status 2; anything else is a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emend.edits import Edit


class EmendError(Exception):
    """Base of all errors that the user can fix."""


class InvalidInput(EmendError, ValueError):
    """A value that was given cannot be used."""


class UnknownName(EmendError, LookupError):
    """A name (of a method, model, metric, dataset, field) that is not known.

    Attributes:
        kind: What is named, in the singular: "method", "model", ...
        name: The name that was given.
        known: The names there are, sorted.
        suggestion: The nearest known name, or None when none is near.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        self.suggestion = nearest(name, self.known)
        there = f"known: {', '.join(self.known)}" if self.known else f"no {kind} is known"
        hint = f": did you mean {self.suggestion!r}? ({there})" if self.suggestion else f"; {there}"
        super().__init__(f"unknown {kind} {name!r}{hint}")


class MissingFile(EmendError, FileNotFoundError):
    """A file or directory that should be there is not."""


class BrokenFile(EmendError, ValueError):
    """A file is there but its content cannot be used.

    Attributes:
        problems: One line per problem found; the message holds them all.
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        details = tuple(problems)
        self.problems = details or (message,)
        super().__init__("\n".join([message, *details]))


class Conflict(InvalidInput):
    """Edits want different things of one statement, are the same twice, or share one id.

    Attributes:
        pairs: The edits, the older of each pair first.
    """

    def __init__(self, message: str, pairs: Iterable[tuple[Edit, Edit]] = ()) -> None:
        self.pairs = tuple(pairs)
        super().__init__(message)


class StoreFailure(EmendError, OSError):
    """A file cannot be written or opened: no room on the disk, no permission, another writer."""


class UnsupportedModel(EmendError, TypeError):
    """The model has a structure that cannot be edited."""


class SubjectNotFound(EmendError, ValueError):
    """The tokenizer gives the subject no token of its own in the prompt."""


class NumericalFailure(EmendError, ArithmeticError):
    """A computation gave a value that is not finite, or a system that cannot be solved."""


class NotEnoughMemory(EmendError, MemoryError):
    """A run would take more memory, or more room on the disk, than is free."""


class EndpointFailure(EmendError, ConnectionError):
    """An endpoint does not answer, or not in the format that was agreed on."""


class EngineFailure(EmendError, RuntimeError):
    """The engine that runs a benchmark's units cannot be reached, or lost a worker for good."""


class MissingExtra(EmendError, ImportError):
    """A package that is not part of the light core is needed and not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """Make the usual message.

        Args:
            package: The package that could not be imported, e.g. "yaml".
            extra: The extra of emend that brings it, e.g. "yaml".
            purpose: What it is needed for, to follow "to", e.g. "read YAML".
        """
        return cls(f"package {package!r} is needed to {purpose}: pip install 'emend[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that is most like `name`, or None when none is near.

    Args:
        name: The name that was given.
        known: The names there are.
    """
    by_folded = {one.casefold().replace("-", "_"): one for one in known}
    folded = name.casefold().replace("-", "_")
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return by_folded[close[0]] if close else None


def first_line(error: BaseException, longest: int = 200) -> str:
    """Return the first line of an error of another library; its kind where it has none.

    Args:
        error: The error.
        longest: Characters after which the line is cut.
    """
    said = str(error).strip().partition("\n")[0].strip()
    return (said or type(error).__name__)[:longest]
