"""Where a model keeps what it says: knowledge neurons."""

from __future__ import annotations

from emend.locate.interventions import Effect, amplify, effect, scaled, suppress
from emend.locate.neurons import (
    Neuron,
    alike,
    attribute,
    attribute_tokens,
    coarse,
    knowledge_neurons,
    refine,
)

__all__ = [
    "Effect",
    "Neuron",
    "alike",
    "amplify",
    "attribute",
    "attribute_tokens",
    "coarse",
    "effect",
    "knowledge_neurons",
    "refine",
    "scaled",
    "suppress",
]
