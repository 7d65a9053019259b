"""Retrieval of texts about named things: what a query names goes before what it resembles.

A paraphrase shares with a fact its subject and maybe nothing else, while facts about others share
its wording; where the things that texts are about are known, a query that names one asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from emend.retrieval._hits import Hit, Index, check_k
from emend.retrieval._words import words


class NamedIndex:
    """Texts searched by what they are about, and then as another index does.

    Args:
        index: Of the texts.
        names: What each text is about.
    """

    def __init__(self, index: Index, names: Sequence[str]) -> None:
        self.index = index
        self._places: dict[tuple[str, ...], list[int]] = {}
        for place, name in enumerate(names):
            self._places.setdefault(tuple(words(name)), []).append(place)
        self._places.pop((), None)
        self._longest = max(map(len, self._places), default=0)
        self._count = len(names)

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """See :meth:`Index.search`; texts that the query names come first."""
        check_k(k)
        named = [self._named(query) for query in queries]
        # To rank what is named, all of it must be among what the other index finds.
        whole = [query for query, places in zip(queries, named, strict=True) if len(places) > 1]
        ranked = dict(zip(whole, self.index.search(whole, self._count), strict=True))
        others = self.index.search(queries, k + max(map(len, named), default=0))
        return [
            self._joined(places, ranked.get(query), near)[:k]
            for query, places, near in zip(queries, named, others, strict=True)
        ]

    def _named(self, query: str) -> set[int]:
        """Places of the texts whose name stands in the query, word for word."""
        found: set[int] = set()
        spoken = words(query)
        for start in range(len(spoken)):
            for end in range(start + 1, min(start + self._longest, len(spoken)) + 1):
                found.update(self._places.get(tuple(spoken[start:end]), ()))
        return found

    def _joined(self, places: set[int], ranked: list[Hit] | None, near: list[Hit]) -> list[Hit]:
        scores = {hit.place: hit.score for hit in ranked or near}
        first = sorted(places, key=lambda place: (-scores.get(place, 0.0), place))
        named = [Hit(place, 1.0 + max(0.0, scores.get(place, 0.0)), True) for place in first]
        return [*named, *(hit for hit in near if hit.place not in places)]
