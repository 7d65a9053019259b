"""From texts and the name of an encoder to an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emend.errors import InvalidInput, UnknownName
from emend.retrieval._dense import LARGE, DenseIndex
from emend.retrieval._hits import Index
from emend.retrieval._named import NamedIndex
from emend.retrieval._words import WordIndex
from emend.retrieval.encoders import Encoder, SentenceEncoder, StateEncoder

WORDS = "bm25"
STATES = StateEncoder.name


def check_encoder(name: str) -> None:
    """Refuse the name of no encoder, before any work is done.

    Raises:
        UnknownName: It is none of ours, no directory, and no name with its owner ("a/b").
    """
    if name not in (WORDS, STATES) and "/" not in name and not Path(name).is_dir():
        raise UnknownName("encoder", name, (WORDS, STATES, "sentence-transformers/..."))


def make_encoder(name: str, model: Any = None, tokenizer: Any = None) -> Encoder | None:
    """The encoder of a name, or None for words.

    Raises:
        UnknownName: There is no such encoder.
        InvalidInput: The model's own states are asked for, and there is no model at hand.
        MissingExtra: sentence-transformers is needed and not installed.
    """
    check_encoder(name)
    if name == WORDS:
        return None
    if name != STATES:
        return SentenceEncoder(name)
    if model is None or tokenizer is None:
        raise InvalidInput(
            "encoder is states, but the model's states are not at hand (an endpoint keeps its "
            "own): use bm25 or a sentence-transformers model"
        )
    return StateEncoder(model, tokenizer)


def build_index(
    texts: Sequence[str],
    encoder: str = WORDS,
    *,
    names: Sequence[str] | None = None,
    model: Any = None,
    tokenizer: Any = None,
    large: int = LARGE,
) -> Index:
    """An index of texts.

    Args:
        texts: What to search; may be empty.
        encoder: "bm25", "states", or a sentence-transformers model by name or directory.
        names: What each text is about, if texts that a query names shall come first.
        model: The language model, for its own states.
        tokenizer: Its tokenizer.
        large: Above so many texts vectors are searched by a FAISS graph.

    Raises:
        UnknownName: There is no such encoder.
        InvalidInput: The model's own states are asked for, and there is no model at hand.
        MissingExtra: sentence-transformers is needed and not installed.
        MissingFile: There is no such sentence-transformers model.
    """
    found = make_encoder(encoder, model, tokenizer)
    index = WordIndex(texts) if found is None else DenseIndex(texts, found, large=large)
    return index if names is None else NamedIndex(index, names)
