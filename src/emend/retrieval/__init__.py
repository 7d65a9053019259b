"""Retrieval: the one place where texts are found.

    index = build_index(texts, encoder="bm25")
    for hits in index.search(["Where was Ana Bel born?"], k=3): ...

An encoder is named: `bm25` (words; needs no model), `states` (the language model's own states), or
the name of a sentence-transformers model (an extra). Search is exact, or by a FAISS graph above a
size (an extra). Texts may have names (what they are about): those that a query names come first.
"""

from __future__ import annotations

from emend.retrieval.encoders import Encoder, KeyEncoder, SentenceEncoder, StateEncoder
from emend.retrieval.index import (
    DenseIndex,
    Hit,
    Index,
    NamedIndex,
    WordIndex,
    build_index,
    check_encoder,
)
from emend.retrieval.naming import check_description, encoder_of, named_encoder
from emend.retrieval.pooled import PooledEncoder

__all__ = [
    "DenseIndex",
    "Encoder",
    "Hit",
    "Index",
    "KeyEncoder",
    "NamedIndex",
    "PooledEncoder",
    "SentenceEncoder",
    "StateEncoder",
    "WordIndex",
    "build_index",
    "check_description",
    "check_encoder",
    "encoder_of",
    "named_encoder",
]
