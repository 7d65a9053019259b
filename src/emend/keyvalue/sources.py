"""Which texts second moments are taken over, where the user names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emend import lab
from emend.keyvalue.moments import TOKENS_PER_KEY, Moment, cache_directory, second_moments
from emend.models import ModelView

LAB_TEXTS = 4000
"""Documents of the lab's corpus; more than enough for `TOKENS_PER_KEY`."""

NO_TEXTS = {
    "kind": "identity",
    "why": "no texts were given, so keys were not weighed against those of other tokens",
}
"""What a patch says of its statistics where there are no texts."""


def moment_for(
    view: ModelView,
    tokenizer: Any,
    layer: int,
    texts: Sequence[str] | None = None,
    *,
    cache: bool = True,
    max_tokens: int | None = None,
) -> tuple[Moment | None, dict[str, Any]]:
    """The second moment of one layer, and what to tell about it.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        layer: The block.
        texts: The texts to take it over. None takes the lab's corpus for a model of the lab,
            and for any other model there is none: keys are then used as they are.
        cache: Whether to look for it and to keep it on disk.
        max_tokens: See `second_moments`; by default 20 for each dimension of a key.

    Returns:
        The moment, or None where there are no texts; and a JSON-able note for the patch.
    """
    texts, source = texts_for(view, texts)
    if not texts:
        return None, dict(NO_TEXTS)
    found = second_moments(
        view,
        tokenizer,
        texts,
        [layer],
        source=source,
        max_tokens=max_tokens or TOKENS_PER_KEY * view.inner(layer),
        cache=cache_directory() if cache else None,
    )
    return found[layer], found[layer].describe()


def texts_for(view: ModelView, texts: Sequence[str] | None) -> tuple[Sequence[str], str]:
    """The texts to take, and what they are: those given, the lab's for its models, or none."""
    if texts is None and is_lab_model(view.model):
        return lab.corpus_texts(LAB_TEXTS), f"lab corpus, {LAB_TEXTS} documents"
    return texts or (), "given texts"


def is_lab_model(model: Any) -> bool:
    """Whether a model was trained on the lab's corpus: its ``config.json`` says so."""
    own = getattr(getattr(model, "config", None), "emend", None)
    return isinstance(own, dict) and "lab" in own
