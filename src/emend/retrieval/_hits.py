"""What a search finds, and what every index does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from emend.errors import InvalidInput


class Hit(NamedTuple):
    """A text that was found.

    Attributes:
        place: Where it stands in the list that the index was built from.
        score: How near it is: by words the share of the query that it covers (0 to 1), by
            vectors their cosine (-1 to 1). Where the query names what the text is about it is
            at least 1.
        named: Whether it does.
    """

    place: int
    score: float
    named: bool = False


class Index(Protocol):
    """Texts that can be searched."""

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """The k nearest texts of each query, nearest first; the earlier of equally near ones.

        Raises:
            InvalidInput: k is below 1.
        """
        ...


def check_k(k: int) -> None:
    """Refuse a number of hits below one.

    Raises:
        InvalidInput: It is.
    """
    if k < 1:
        raise InvalidInput(f"k is {k}, expected 1 or more: ask for at least one text")


def nearest(scores: Any, k: int) -> list[Hit]:
    """The k largest of (N,) scores, the earlier of equal ones first, in O(N)."""
    k = min(k, len(scores))
    if k < 1:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: k - len(above)]
    chosen = np.concatenate([above, equal])
    order = np.lexsort((chosen, -scores[chosen]))
    return [Hit(int(place), float(scores[place])) for place in chosen[order]]
