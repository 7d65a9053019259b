"""Edits of facts of the lab's world, with probes derived by rule."""

from __future__ import annotations

import os

from emend.edits import Edit, MultiHop
from emend.errors import InvalidInput
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits, draw_multi_hop


def lab(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[Edit]:
    """Draw edits of the facts that the lab's models know.

    Args:
        limit: Number of edits; every fact by default.
        seed: Seed of the draw and of the new objects.
        path: None: the lab ships with the package.

    Raises:
        InvalidInput: A path is given.
    """
    _check_path(path)
    return draw_edits(shipped_world(), limit, seed)


def multi_hop(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[MultiHop]:
    """Draw questions over two, three and four facts, some of them edited.

    Args:
        limit: Number of questions; 150 by default.
        seed: Seed of every choice.
        path: None: the lab ships with the package.

    Raises:
        InvalidInput: A path is given.
    """
    _check_path(path)
    return draw_multi_hop(shipped_world(), 150 if limit is None else limit, seed)


def _check_path(path: str | os.PathLike[str] | None) -> None:
    if path is not None:
        raise InvalidInput(f"found path {str(path)!r}, but the lab has no files: leave it out")
