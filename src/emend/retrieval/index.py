"""Indexes: texts in, the nearest of them and how near they are out.

`WordIndex` compares texts by their words, `DenseIndex` by vectors, and `NamedIndex` puts texts
first whose name a query holds. `build_index` makes one from the name of an encoder.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from emend.errors import InvalidInput, UnknownName
from emend.retrieval.encoders import STATES, Encoder, SentenceEncoder, StateEncoder

WORDS = "bm25"
LARGE = 20_000
"""Above this number of texts a FAISS graph is searched, where FAISS is installed."""
NEIGHBORS, BREADTH_BUILT, BREADTH_SEARCHED = 16, 40, 128
"""M, efConstruction and efSearch of the graph."""
K1, B = 1.5, 0.75
"""BM25: how soon a word's repetition stops to count, and how much long texts are held back."""
_WORD = re.compile(r"\w+")


class Hit(NamedTuple):
    """A text that was found.

    Attributes:
        place: Its place in the list that the index was built from.
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
        """Return the k nearest texts of each query, nearest first; of equal ones the earlier.

        Raises:
            InvalidInput: k is below 1.
        """
        ...


class WordIndex:
    """Texts searched by their words: BM25, of the `bm25s` library.

        score(q, d) = sum over words t of q of
                      idf(t) tf(t, d) / (tf(t, d) + k1 (1 - b + b |d| / avg))

    Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", in
    Lucene's form. It is divided by the sum of idf over the query's words (one that no text has
    counts as the rarest), so that it is the share of the query that a text covers: 0 to 1,
    whatever the texts.

    Args:
        texts: What to search; may be empty.
        k1: See `K1`.
        b: See `B`.
    """

    def __init__(self, texts: Sequence[str], *, k1: float = K1, b: float = B) -> None:
        import bm25s  # half a second, which `import emend` need not pay

        found = [words(text) for text in texts]
        self._count = len(found)
        self._held = Counter(word for text in found for word in set(text))
        self._index: Any = None
        if self._held:
            self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
            self._index.index(found, show_progress=False)

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """See `Index.search`; texts that share no word with the query have score 0."""
        _check_k(k)
        return [self._search(words(query), k) for query in queries]

    def _search(self, query: list[str], k: int) -> list[Hit]:
        known = [word for word in query if word in self._held]
        if not known:
            return [Hit(place, 0.0) for place in range(min(k, self._count))]
        whole = sum(self._idf(word) for word in query)
        return _nearest(self._index.get_scores(known) / whole, k)

    def _idf(self, word: str) -> float:
        held = self._held[word]
        return math.log(1 + (self._count - held + 0.5) / (held + 0.5))


class DenseIndex:
    """Texts searched by the cosine of their vectors.

    Where there are many, by a graph of neighbors: Malkov & Yashunin 2018, "Efficient and robust
    approximate nearest neighbor search using hierarchical navigable small world graphs", arXiv
    1603.09320, as FAISS has it.

    Args:
        texts: What to search; may be empty.
        encoder: What turns them and the queries into vectors.
        large: Above this number of texts the search is approximate; without FAISS it stays exact,
            and a warning says so.
    """

    def __init__(self, texts: Sequence[str], encoder: Encoder, *, large: int = LARGE) -> None:
        self.encoder = encoder
        self._vectors: Any = encoder.encode(texts) if texts else None  # (N, size)
        self._graph: Any = _graph(self._vectors) if len(texts) > large else None

    @property
    def exact(self) -> bool:
        """Whether every text is compared with the query."""
        return self._graph is None

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """See `Index.search`."""
        _check_k(k)
        if self._vectors is None or not queries:
            return [[] for _ in queries]
        asked = self.encoder.encode(queries)  # (Q, size)
        if self._graph is None:
            return [_nearest(self._vectors @ query, k) for query in asked]
        scores, found = self._graph.search(asked, min(k, len(self._vectors)))
        return [
            [Hit(int(i), float(s)) for i, s in zip(row, near, strict=True) if i >= 0]
            for row, near in zip(found, scores, strict=True)
        ]


class NamedIndex:
    """Texts searched by what they are about, and then as another index does.

    A paraphrase shares with a fact its subject and maybe nothing else, while facts about others
    share its wording; a query that names what a text is about asks for that text.

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
        """See `Index.search`; texts that the query names come first."""
        _check_k(k)
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
        """Return the places of the texts whose name is in the query, word for word."""
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


def check_encoder(name: str) -> None:
    """Refuse the name of no encoder, before any work is done.

    Raises:
        UnknownName: It is none of ours, no directory, and no name with its owner ("a/b").
    """
    if name not in (WORDS, STATES) and "/" not in name and not Path(name).is_dir():
        raise UnknownName("encoder", name, (WORDS, STATES, "sentence-transformers/..."))


def build_index(
    texts: Sequence[str],
    encoder: str = WORDS,
    *,
    model: Any = None,
    tokenizer: Any = None,
    large: int = LARGE,
) -> WordIndex | DenseIndex:
    """Build an index of texts.

    Args:
        texts: What to search; may be empty.
        encoder: "bm25", "states", or a sentence-transformers model by name or directory.
        model: The language model, for its own states.
        tokenizer: Its tokenizer.
        large: See `DenseIndex`.

    Raises:
        UnknownName: There is no such encoder.
        InvalidInput: The model's own states are asked for, and there is no model at hand.
        MissingExtra: sentence-transformers is needed and not installed.
        MissingFile: There is no such sentence-transformers model.
    """
    check_encoder(encoder)
    if encoder == WORDS:
        return WordIndex(texts)
    if encoder != STATES:
        return DenseIndex(texts, SentenceEncoder(encoder), large=large)
    if model is None or tokenizer is None:
        raise InvalidInput(
            "encoder is states, but the model's states are not at hand (an endpoint keeps its "
            "own): use bm25 or a sentence-transformers model"
        )
    return DenseIndex(texts, StateEncoder(model, tokenizer), large=large)


def words(text: str) -> list[str]:
    """Return the words of a text, without case."""
    return _WORD.findall(text.casefold())


def _check_k(k: int) -> None:
    if k < 1:
        raise InvalidInput(f"k is {k}, expected 1 or more: ask for at least one text")


def _nearest(scores: Any, k: int) -> list[Hit]:
    """Return the k largest of (N,) scores, the earlier of equal ones first, in O(N)."""
    k = min(k, len(scores))
    if k < 1:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)[: k - len(above)]
    chosen = np.concatenate([above, equal])
    order = np.lexsort((chosen, -scores[chosen]))
    return [Hit(int(place), float(scores[place])) for place in chosen[order]]


def _graph(vectors: Any) -> Any:
    try:
        import faiss
    except ImportError:
        warnings.warn(
            f"{len(vectors)} texts are searched one by one, since faiss is not installed: "
            "pip install 'emend[retrieval]' for a faster, approximate search",
            stacklevel=4,
        )
        return None
    module: Any = faiss
    graph = module.IndexHNSWFlat(vectors.shape[1], NEIGHBORS, module.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = BREADTH_BUILT, BREADTH_SEARCHED
    graph.add(vectors)
    return graph
