"""What is known of all other keys: second moments of several layers, read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.keyvalue.joint import Metric, Scaled, inverse
from emend.keyvalue.keys import forward, watching
from emend.keyvalue.moments import TOKENS_PER_KEY, Moment, cache_directory, second_moments
from emend.keyvalue.sources import NO_TEXTS, texts_for
from emend.models import ModelView

PROBE = (8, 32)
"""Rows and tokens of the random text that shows how large keys are."""


@dataclass(frozen=True)
class Prior:
    """The second moments of some layers.

    Attributes:
        note: What a patch keeps of them, JSON-able.
    """

    note: dict[str, Any]
    _given: dict[int, Moment] | None = None
    _arguments: dict[str, Any] | None = None

    @property
    def is_known(self) -> bool:
        """Whether there are second moments at all."""
        return self._given is not None or self._arguments is not None

    def moment(self, layer: int) -> Tensor:
        """(inner, inner) of one layer; read from disk, so that one at a time is in memory."""
        if self._arguments is not None:
            return second_moments(layers=[layer], **self._arguments)[layer].matrix
        assert self._given is not None
        return self._given[layer].matrix


def prior_for(
    view: ModelView,
    tokenizer: Any,
    layers: Sequence[int],
    texts: Sequence[str] | None = None,
    *,
    cache: bool = True,
    max_tokens: int | None = None,
) -> Prior:
    """The second moments of several layers, collected in one pass.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        layers: The blocks.
        texts: The texts to take them over. None takes the lab's corpus for a model of the lab,
            and for any other model there are none.
        cache: Whether to look for them and to keep them on disk.
        max_tokens: See `second_moments`; by default 20 for each dimension of a key.
    """
    texts, source = texts_for(view, texts)
    if not texts:
        return Prior(dict(NO_TEXTS))
    arguments: dict[str, Any] = {
        "view": view,
        "tokenizer": tokenizer,
        "texts": texts,
        "source": source,
        "max_tokens": max_tokens or TOKENS_PER_KEY * view.inner(layers[0]),
        "cache": cache_directory() if cache else None,
    }
    found = second_moments(layers=layers, **arguments)
    note = found[layers[0]].describe()
    return Prior(note, _arguments=arguments) if cache else Prior(note, found)


def metric_of(view: ModelView, prior: Prior, layer: int, ridge: float) -> Metric:
    """C^-1 of one layer, or where nothing is known of other keys, the identity at their scale.

    Raises:
        NumericalFailure: C is singular.
    """
    if not prior.is_known:
        return Scaled(key_size(view, layer))
    device = view.device(layer)
    moment = prior.moment(layer)
    # Float64 is slow or missing on other accelerators.
    return inverse(moment.to(device) if device.type == "cuda" else moment, ridge)


def key_size(view: ModelView, layer: int) -> float:
    """The mean square of a key's components over random tokens: the scale where C is unknown.

    The median over tokens is taken, since the first tokens of a text can have keys a hundred
    times larger. It depends on the model alone, never on the edits.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(view.vocabulary, PROBE, generator=generator)
    with watching(view, [layer]) as seen:
        forward(view, ids, torch.ones_like(ids), layer)
    keys = seen[layer][0].double()  # (rows, tokens, inner), or folded
    return float(keys.reshape(-1, keys.shape[-1]).square().mean(1).median())
