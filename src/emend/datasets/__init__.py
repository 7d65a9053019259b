"""Datasets of edits: one file each, found by name; and files of edits in every published form.

A dataset is a module of this package, or an entry point of the group `emend.datasets`, and its
object has the module's own name. It is a `Format`, which reads records of files (`read` and
`read_edits` recognise them by their content), or a function with the arguments `limit`, `seed` and
`path` that returns a list of edits. A function `multi_hop` with the same arguments in its module
returns the dataset's multi-hop instances. Example: docs/data-formats.md. A `ComparisonFormat` has
no edits: its records are sentences to compare, which `load_comparisons` reads.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Protocol

from emend.datasets._comparisons import Comparison, ComparisonFormat, read_comparisons
from emend.datasets._files import write_edits
from emend.datasets._format import (
    QUESTION_LAYOUT,
    Entry,
    Format,
    HarmonicMean,
    PublishedScore,
    Score,
)
from emend.datasets._read import (
    Reading,
    format_of,
    formats,
    load_file,
    load_multi_hop_file,
    read,
    read_edits,
    registry,
)
from emend.edits import Edit, MultiHop
from emend.errors import InvalidInput

__all__ = [
    "QUESTION_LAYOUT",
    "Comparison",
    "ComparisonFormat",
    "Entry",
    "Format",
    "HarmonicMean",
    "Loader",
    "PublishedScore",
    "Reading",
    "Score",
    "format_of",
    "formats",
    "load",
    "load_comparisons",
    "load_multi_hop",
    "read",
    "read_edits",
    "registry",
    "write_edits",
]


class Loader(Protocol):
    """A dataset without files: a function that returns edits."""

    def __call__(
        self, *, limit: int | None, seed: int, path: str | os.PathLike[str] | None
    ) -> list[Edit]:
        """Return at most `limit` edits, drawn by `seed`, from the files at `path`."""
        ...


def load(
    name: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> list[Edit]:
    """Load the edits of a dataset, each with its probes.

    Args:
        name: A registered dataset, e.g. "lab".
        limit: The largest number of edits; None for all.
        seed: Seed of the draw, and of the targets if the dataset leaves them open.
        path: The dataset's file, if it does not ship with emend.

    Raises:
        UnknownName: There is no dataset of that name.
        InvalidInput: `limit` is not positive.
    """
    _check_limit(limit)
    found: Format | ComparisonFormat | Loader = registry().get(name)
    if isinstance(found, ComparisonFormat):
        raise InvalidInput(
            f"dataset {name} holds sentences to compare and no edits, expected edits: "
            f"measure it by `emend fairness --data {name} FILE`"
        )
    if isinstance(found, Format):
        return load_file(found, limit, seed, path)
    return found(limit=limit, seed=seed, path=path)


def load_comparisons(
    name: str,
    path: str | os.PathLike[str],
    *,
    limit: int | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Load the records of a dataset of sentences to compare.

    Args:
        name: "stereoset" or "crows_pairs".
        path: One of the dataset's files; `-` is standard input.
        limit: Number of records, drawn by `seed`; all in the file's order by default.
        seed: Seed of the draw.

    Raises:
        BrokenFile: A record cannot be read, or the file is of another form.
        InvalidInput: The dataset holds edits, the path is a directory, or `limit` is not positive.
        MissingFile: There is no such file.
        UnknownName: There is no dataset of that name.
    """
    found: object = registry().get(name)
    if not isinstance(found, ComparisonFormat):
        known = [one for one in registry().names() if _is_comparison(one)]
        raise InvalidInput(
            f"dataset {name} holds no sentences to compare, expected one of {', '.join(known)}"
        )
    return read_comparisons(found, path, limit=limit, seed=seed)


def _is_comparison(name: str) -> bool:
    return isinstance(registry().get(name), ComparisonFormat)


def load_multi_hop(
    name: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> list[MultiHop]:
    """Load the multi-hop instances of a dataset; the arguments are those of :func:`load`.

    Raises:
        UnknownName: There is no dataset of that name.
        InvalidInput: It has no multi-hop questions, or `limit` is not positive.
    """
    _check_limit(limit)
    found = _with_multi_hop(name)
    if found is None:
        having = [one for one in registry().names() if _with_multi_hop(one)]
        raise InvalidInput(
            f"dataset {name} has no multi-hop questions, expected one of {', '.join(having)}"
        )
    if isinstance(found, Format):
        return load_multi_hop_file(found, limit, seed, path)
    return found(limit=limit, seed=seed, path=path)


def _with_multi_hop(name: str) -> Format | Callable[..., list[MultiHop]] | None:
    """Return the format, or the function `multi_hop` of its module, if the dataset has one."""
    found: Format | ComparisonFormat | Loader = registry().get(name)
    if isinstance(found, ComparisonFormat):
        return None
    if isinstance(found, Format):
        return found if found.multi_hop else None
    return getattr(importlib.import_module(found.__module__), "multi_hop", None)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, expected a positive number or none")
