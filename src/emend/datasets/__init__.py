"""Edits to work with, from files in every form that is known, and by name: one file per dataset.

A dataset is a module of this package (or an entry point of the group `emend.datasets`) whose
object of the module's own name takes `limit`, `seed` and `path` and returns a list of edits. Where
it is a `Format`, files of that form are recognised by their content: `read`, `read_edits`. Where
the module has a function `multi_hop` too, with the same arguments, it gives the dataset's
multi-hop instances.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Protocol

from emend._registry import Registry
from emend.datasets._format import Format
from emend.datasets._read import Reading, format_of, formats, read, read_edits
from emend.datasets._write import write_edits
from emend.edits import Edit, MultiHop
from emend.errors import InvalidInput

__all__ = [
    "Format",
    "Loader",
    "Reading",
    "format_of",
    "formats",
    "load",
    "load_multi_hop",
    "read",
    "read_edits",
    "registry",
    "write_edits",
]


class Loader(Protocol):
    """What a dataset is: a function that returns edits."""

    def __call__(
        self, *, limit: int | None, seed: int, path: str | os.PathLike[str] | None
    ) -> list[Edit]:
        """Return at most `limit` edits, drawn by `seed`, from the files at `path`."""
        ...


def registry() -> Registry[Loader]:
    """The datasets there are."""
    return Registry(kind="dataset", packages=["emend.datasets"], group="emend.datasets")


def load(
    name: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> list[Edit]:
    """Edits of the dataset `name`, each with its probes.

    Args:
        name: A registered dataset, e.g. "lab".
        limit: How many edits to return at most; None for all.
        seed: Which edits are drawn, and which target each gets where the dataset leaves it open.
        path: Where the dataset's files are, for those that do not ship with emend.

    Raises:
        UnknownName: There is no dataset of that name.
        InvalidInput: `limit` is not positive.
    """
    _check_limit(limit)
    return registry().get(name)(limit=limit, seed=seed, path=path)


def load_multi_hop(
    name: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> list[MultiHop]:
    """Multi-hop instances of the dataset `name`; the arguments are those of :func:`load`.

    Raises:
        UnknownName: There is no dataset of that name.
        InvalidInput: It has no multi-hop questions, or `limit` is not positive.
    """
    _check_limit(limit)
    given = _multi_hop_of(registry().get(name))
    if given is None:
        having = [one for one in registry().names() if _multi_hop_of(registry().get(one))]
        raise InvalidInput(
            f"dataset {name} has no multi-hop questions, expected one of {', '.join(having)}"
        )
    return given(limit=limit, seed=seed, path=path)


def _multi_hop_of(loader: Loader) -> Callable[..., list[MultiHop]] | None:
    if isinstance(loader, Format):
        return loader.multi_hop
    module = importlib.import_module(getattr(loader, "__module__", __name__))
    return getattr(module, "multi_hop", None)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, expected a positive number or none")
