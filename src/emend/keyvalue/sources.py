"""Which texts second moments are taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emend.keyvalue._corpus import LAB_TEXTS, JsonLines, LabCorpus, Source, TextFile, Texts
from emend.keyvalue._hub import HubDataset
from emend.keyvalue._named import source_named
from emend.models import ModelView

NO_TEXTS = {
    "kind": "identity",
    "why": "no texts were given, so keys were not weighed against those of other tokens",
}
"""What a patch says of its statistics where there are no texts."""


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
    "source_named",
    "texts_for",
]
