"""Edits of facts of the lab's world, with probes derived by rule."""

from __future__ import annotations

import os

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits


def lab(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[Edit]:
    """Draw edits of the facts that the lab's models know.

    Args:
        limit: How many; every fact by default.
        seed: Seed of the draw and of the new objects.
        path: Not used: the lab ships with the package.

    Raises:
        InvalidInput: If a path is given.
    """
    if path is not None:
        raise InvalidInput(f"found path {str(path)!r}, but the lab has no files: leave it out")
    return draw_edits(shipped_world(), limit, seed)
