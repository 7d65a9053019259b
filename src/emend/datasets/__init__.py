"""Edits to work with, by name: one file per dataset.

A dataset is a module of this package (or an entry point of the group `emend.datasets`) whose
function of the module's own name takes `limit`, `seed` and `path` and returns a list of edits.
"""

from __future__ import annotations

import os
from typing import Protocol

from emend._registry import Registry
from emend.edits import Edit
from emend.errors import InvalidInput

__all__ = ["Loader", "load", "registry"]


class Loader(Protocol):
    """What a dataset is: a function that returns edits."""

    def __call__(
        self, *, limit: int | None, seed: int, path: str | os.PathLike[str] | None
    ) -> list[Edit]:
        """Return at most `limit` edits, drawn by `seed`, from the files at `path`."""
        ...


def registry() -> Registry[Loader]:
    """The datasets there are."""
    return Registry(kind="dataset", package="emend.datasets", group="emend.datasets")


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
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, expected a positive number or none")
    return registry().get(name)(limit=limit, seed=seed, path=path)
