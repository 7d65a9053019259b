"""Where a model keeps what it says: tracing, memories, the logit lens, knowledge neurons."""

from __future__ import annotations

from emend.locate.averages import ROLES, AverageEffects, trace_many
from emend.locate.facts import read_facts
from emend.locate.logit_lens import Lens, lens
from emend.locate.memories import Agreement, Memories, Memory
from emend.locate.neurons import (
    Neuron,
    attribute,
    attribute_tokens,
    coarse,
    knowledge_neurons,
    refine,
    same_size_layers,
)
from emend.locate.states import block_states
from emend.locate.studies import Effect, Study, amplify, effect, scaled, study, suppress
from emend.locate.tracing import KINDS, Settings, Trace, subject_effect, trace

__all__ = [
    "KINDS",
    "ROLES",
    "Agreement",
    "AverageEffects",
    "Effect",
    "Lens",
    "Memories",
    "Memory",
    "Neuron",
    "Settings",
    "Study",
    "Trace",
    "amplify",
    "attribute",
    "attribute_tokens",
    "block_states",
    "coarse",
    "effect",
    "knowledge_neurons",
    "lens",
    "read_facts",
    "refine",
    "same_size_layers",
    "scaled",
    "study",
    "subject_effect",
    "suppress",
    "trace",
    "trace_many",
]
