"""What a format of edits is: how its records are recognised, and what edits they are."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emend.datasets._published import Entry
from emend.edits import Edit, MultiHop
from emend.errors import InvalidInput


@dataclass(frozen=True)
class Format:
    """A published form of records, or our own; as a dataset, the edits of one of its files.

    Attributes:
        name: The name of its module.
        title: What people call it.
        about: One line: whose it is, and which files have it.
        recognises: Whether a record is of this form, by the fields that it has.
        read: The edits of a record, none where something is wrong with it, which is noted.
        fields: What each field becomes; what is not listed is not read.
        example: A record, invented.
        multi_hop: Reads multi-hop instances, where the format has them.
    """

    name: str
    title: str
    about: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Entry], list[Edit]]
    fields: Mapping[str, str]
    example: Mapping[str, Any]
    multi_hop: Callable[..., list[MultiHop]] | None = None

    def __call__(
        self, *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
    ) -> list[Edit]:
        """Read the edits of a file.

        Args:
            limit: How many, drawn by `seed`; all of them in the file's order by default.
            seed: Seed of the draw.
            path: The file; `-` is standard input.

        Raises:
            InvalidInput: No path is given, or a directory.
            MissingFile: There is no such file.
            BrokenFile: It holds records that cannot be read; every problem is named.
        """
        from emend.datasets._read import read  # which asks the registry of formats

        if path is None:
            raise InvalidInput(
                f"{self.title} does not ship with emend, expected the path of one of its files: "
                "give it"
            )
        found = read(path, format=self.name)
        found.check()
        return drawn(list(found.edits), limit, f"{self.name}-{seed}")


def drawn(found: list[Any], limit: int | None, seed: str) -> list[Any]:
    """Draw `limit` of what was found, in its order; all of it where that is no more."""
    if limit is None or limit >= len(found):
        return found
    chosen = random.Random(seed).sample(range(len(found)), limit)
    return [found[index] for index in sorted(chosen)]
