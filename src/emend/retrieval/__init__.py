"""Retrieval: texts in, the nearest of them and how near they are out. One place for all methods.

    index = build_index(texts, encoder="bm25")
    for hits in index.search(["Where was Ana Bel born?"], k=3): ...

What texts are compared by is named: `bm25` (words; needs no model), `states` (the language model's
own mean-pooled states), or the name of a sentence-transformers model (an extra). Search is exact,
or by a FAISS graph above a size (an extra). Texts may have names (what they are about): those that
a query names come first.
"""

from __future__ import annotations

from emend.retrieval._build import build_index, check_encoder
from emend.retrieval._dense import DenseIndex
from emend.retrieval._hits import Hit, Index
from emend.retrieval._named import NamedIndex
from emend.retrieval._words import WordIndex
from emend.retrieval.encoders import Encoder, SentenceEncoder, StateEncoder

__all__ = [
    "DenseIndex",
    "Encoder",
    "Hit",
    "Index",
    "NamedIndex",
    "SentenceEncoder",
    "StateEncoder",
    "WordIndex",
    "build_index",
    "check_encoder",
]
