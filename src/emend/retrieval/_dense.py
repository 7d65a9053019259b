"""Retrieval by vectors: exact, or by FAISS's graph of neighbours where there are many.

Malkov & Yashunin 2018, "Efficient and robust approximate nearest neighbor search using
hierarchical navigable small world graphs", arXiv 1603.09320.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from emend.retrieval._hits import Hit, check_k, nearest
from emend.retrieval.encoders import Encoder

LARGE = 20_000
"""Above so many texts a FAISS graph is searched, where FAISS is installed."""
_NEIGHBOURS, _BREADTH_BUILT, _BREADTH_SEARCHED = 16, 40, 128


class DenseIndex:
    """Texts searched by the cosine of their vectors.

    Args:
        texts: What to search; may be empty.
        encoder: What turns them and the queries into vectors.
        large: Above so many texts the search is approximate, by a FAISS graph; without FAISS it
            stays exact, and a warning says so.
    """

    def __init__(self, texts: Sequence[str], encoder: Encoder, *, large: int = LARGE) -> None:
        self.encoder = encoder
        self._vectors: Any = encoder.encode(texts) if texts else None  # (N, width)
        self._graph: Any = None
        if len(texts) > large:
            self._graph = _graph(self._vectors)

    @property
    def exact(self) -> bool:
        """Whether every text is compared with the query."""
        return self._graph is None

    def search(self, queries: Sequence[str], k: int = 1) -> list[list[Hit]]:
        """See :meth:`Index.search`."""
        check_k(k)
        if self._vectors is None or not queries:
            return [[] for _ in queries]
        asked = self.encoder.encode(queries)  # (Q, width)
        if self._graph is None:
            return [nearest(self._vectors @ query, k) for query in asked]
        scores, found = self._graph.search(asked, min(k, len(self._vectors)))
        return [
            [Hit(int(i), float(s)) for i, s in zip(row, near, strict=True) if i >= 0]
            for row, near in zip(found, scores, strict=True)
        ]


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
    graph = module.IndexHNSWFlat(vectors.shape[1], _NEIGHBOURS, module.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = _BREADTH_BUILT, _BREADTH_SEARCHED
    graph.add(vectors)
    return graph
