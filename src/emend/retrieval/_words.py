"""Retrieval by words: BM25, of the `bm25s` library.

    score(q, d) = sum over words t of q of idf(t) tf(t, d) / (tf(t, d) + k1 (1 - b + b |d| / avg))

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in Lucene's
form. It is divided by the sum of idf over the query's words (one that no text has counts as the
rarest), so that it is the share of the query that a text covers: 0 to 1, whatever the texts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from emend.retrieval._hits import Hit, check_k, nearest

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, without case."""
    return _WORD.findall(text.casefold())


class WordIndex:
    """Texts searched by their words.

    Args:
        texts: What to search; may be empty.
        k1: How soon a word's repetition stops to count.
        b: How much long texts are held back, from 0 to 1.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        import bm25s  # half a second, which `import emend` need not pay

        found = [words(text) for text in texts]
        self._count = len(found)
        self._held = Counter(word for text in found for word in set(text))
        self._index: Any = None
        if self._held:
            self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
            self._index.index(found, show_progress=False)

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """See :meth:`Index.search`; texts that share no word with the query have score 0."""
        check_k(k)
        return [self._search(words(query), k) for query in queries]

    def _search(self, query: list[str], k: int) -> list[Hit]:
        known = [word for word in query if word in self._held]
        if not known:
            return [Hit(place, 0.0) for place in range(min(k, self._count))]
        whole = sum(self._rarity(word) for word in query)
        return nearest(self._index.get_scores(known) / whole, k)

    def _rarity(self, word: str) -> float:
        """Lucene's idf."""
        held = self._held[word]
        return math.log(1 + (self._count - held + 0.5) / (held + 0.5))
