"""SERAC: edits in a memory, a classifier of their scope, a model that answers inside it.

Mitchell et al. 2022, arXiv 2206.06520.

    f~(x) = f(x)                  if beta < 0.5        f: the base model, untouched
            h(z_i, x)             otherwise            h: the counterfactual model, z_i: the edit
    beta, i = max over the memory of g(z_i, x)         g: the scope classifier        eq. 1

    paper              here
    g, embedding form  memories/scope.py: exp(-|W x - W x_i|^2)
    g, cross-attention memories/scope.py: the form "cross"; the base model reads both together
    h                  the base model with a trained adapter, reading "New fact: ..." before x
    soft mixing        `soft`: (1 - beta) p_f + beta p_h
    training           hypernetworks/scope.py (`emend train --method serac`)

Where this deviates: g encodes texts by the base model's own states at the last token (the inputs
of two late down-projections) and a trained linear head, where the paper trains a DistilBERT; any
sentence-transformers model can take its place. The edit's prompt is encoded without its target.
h is the base model itself with an adapter and not a small model of its own, so that their
vocabularies are one. The threshold is set on validation edits and not at 0.5. The cross form reads
only the nearest edits by the embedding form. Texts out of scope are trained against the nearest
edit of a batch. An untrained state refuses to edit.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Annotated, Any

from emend._settings import Range
from emend.editing.rows import whole_rows
from emend.edits import Edit
from emend.methods._method import method
from emend.methods.hypernetwork import state_directory
from emend.methods.serac._encoders import check_encoder
from emend.methods.serac._patch import ScopePatch
from emend.methods.serac.training import ScopeState, load_scope, scope_patch
from emend.patches import MemoryPatch, describe_base


@dataclass(frozen=True)
class SeracConfig:
    """Settings of SERAC."""

    state: str | None = None
    """Directory of the trained state; by default the one that the model itself brings."""
    soft: bool = False
    """Whether both models answer, weighted by how much a prompt is in scope."""
    threshold: Annotated[float, Range(above=0, below=1)] | None = None
    """How much a prompt must be about an edit to be in its scope, 0 to 1 (published: 0.5); by
    default what was found best in training."""
    allow_other_base: bool = False
    """Whether to use a state that was trained on a model with other weights."""


@method(
    title="SERAC: a memory of edits, a trained scope classifier, a counterfactual model",
    paper="Mitchell et al. 2022, arXiv 2206.06520",
    when="edits in milliseconds, rewordings too, once it is trained; answers twice as dear",
    order_free=True,
    memory=True,
)
def serac(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: SeracConfig,
    previous: MemoryPatch | None = None,
) -> ScopePatch:
    """Add edits to the memory of a trained state (`emend train --method serac`)."""
    started = time.perf_counter()
    whole_rows(tokenizer, edits, "{}")  # refuses subjects without tokens
    state = _state(model, config, previous)
    patch = scope_patch(
        state,
        model,
        tokenizer,
        (*(previous.edits if previous else ()), *edits),
        dataclasses.asdict(config),
        previous.tensors["vectors"] if previous else None,
        soft=config.soft,
        threshold=config.threshold or state.details["threshold"],
    )
    seconds = time.perf_counter() - started
    timing = {"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)}
    return dataclasses.replace(patch, timing=timing)


def _state(model: Any, config: SeracConfig, previous: MemoryPatch | None) -> ScopeState:
    """What was trained: of the memory that is gone on from, or from its directory.

    Raises:
        MissingFile: There is none; the message says how to train one.
        InvalidInput: It was trained for another model, or with another encoder than the memory.
    """
    if previous is not None and config.state is None:
        tensors = {name: t for name, t in previous.tensors.items() if name != "vectors"}
        return ScopeState(tensors, previous.details, previous.base)
    base = describe_base(model)
    directory = state_directory("serac", model, config.state)
    state = load_scope(directory, base, allow_other_base=config.allow_other_base)
    if previous is not None:
        check_encoder(previous.details["encoder"], state.details["encoder"])
    return dataclasses.replace(state, base=base)
