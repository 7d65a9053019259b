"""A stand-in for sentence-transformers."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence


def sentence_model(monkeypatch, vector: Sequence[float] | Callable[[str], Sequence[float]]) -> None:
    """Have every model that is there give a vector, the same or one made of the text."""

    class Model:
        def __init__(self, name: str) -> None:
            if "missing" in name:
                raise OSError("no such model\nmore")

        def encode(self, texts, show_progress_bar):
            assert not show_progress_bar
            return [vector(text) if callable(vector) else vector for text in texts]

    module = types.SimpleNamespace(SentenceTransformer=Model)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
