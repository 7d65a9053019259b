"""Which texts second moments are taken over, and the second moment of one layer over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emend.keyvalue._corpus import LAB_TEXTS, JsonLines, LabCorpus, Source, TextFile, Texts
from emend.keyvalue._hub import HubDataset
from emend.keyvalue._named import source_named
from emend.keyvalue.moments import TOKENS_PER_KEY, Moment, cache_directory, second_moments
from emend.models import ModelView

NO_TEXTS = {
    "kind": "identity",
    "why": "no texts were given, so keys were not weighed against those of other tokens",
}
"""What a patch says of its statistics where there are no texts."""


def moment_for(
    view: ModelView,
    tokenizer: Any,
    layer: int,
    texts: str | Sequence[str] | None = None,
    *,
    cache: bool = True,
    max_tokens: int | None = None,
) -> tuple[Moment | None, dict[str, Any]]:
    """The second moment of one layer, and what to tell about it.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        layer: The block.
        texts: The texts to take it over; see `texts_for`.
        cache: Whether to look for it and to keep it on disk.
        max_tokens: See `second_moments`; by default 20 for each dimension of a key.

    Returns:
        The moment, or None where there are no texts; and a JSON-able note for the patch.
    """
    source = texts_for(view, texts)
    if source is None:
        return None, dict(NO_TEXTS)
    found = second_moments(
        view,
        tokenizer,
        source,
        [layer],
        max_tokens=max_tokens or TOKENS_PER_KEY * view.inner(layer),
        cache=cache_directory() if cache else None,
    )
    return found[layer], found[layer].describe()


def texts_for(view: ModelView, texts: str | Sequence[str] | Source | None) -> Source | None:
    """The texts to take: those given, the lab's for its models, or none.

    Args:
        view: The model.
        texts: The name of a source (a text file, a JSONL, a Hugging Face dataset, "lab"; see
            `source_named`), a sequence of texts themselves, or a source. None takes the lab's
            corpus for a model of the lab, and for any other model there are no texts.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: The name cannot be understood.
    """
    if isinstance(texts, str):
        return source_named(texts)
    if isinstance(texts, Sequence):
        return Texts(texts) if texts else None
    if texts is None and is_lab_model(view.model):
        return LabCorpus()
    return texts


def is_lab_model(model: Any) -> bool:
    """Whether a model was trained on the lab's corpus: its ``config.json`` says so."""
    own = getattr(getattr(model, "config", None), "emend", None)
    return isinstance(own, dict) and "lab" in own


__all__ = [
    "LAB_TEXTS",
    "NO_TEXTS",
    "HubDataset",
    "JsonLines",
    "LabCorpus",
    "Source",
    "TextFile",
    "Texts",
    "is_lab_model",
    "moment_for",
    "source_named",
    "texts_for",
]
