"""Where a model keeps what it says: causal tracing and knowledge neurons."""

from __future__ import annotations

from emend.locate.averages import ROLES, AverageEffects, trace_many
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
from emend.locate.tracing import KINDS, Settings, Trace, trace

__all__ = [
    "KINDS",
    "ROLES",
    "AverageEffects",
    "Effect",
    "Neuron",
    "Settings",
    "Trace",
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
    "trace",
    "trace_many",
]
