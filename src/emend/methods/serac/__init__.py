"""SERAC: a memory of edits, a scope classifier, and a counterfactual model that answers in scope.

Mitchell et al. 2022, arXiv 2206.06520.

    f~(x) = f(x)                  if beta < 0.5
            h(z_i, x)             otherwise
    beta, i = max over the memory of g(z_i, x)                                        eq. 1
    g(z_i, x) = exp(-|W x - W x_i|^2)           the embedding form
                sigmoid(v^T y_i + b)            the cross-attention form

    paper                           here
    f                               the base model, untouched
    g, scope classifier             `_patch.ScopeClassifier`; W: ``head``, (v, b): ``cross``
    x, x_i, y_i                     vectors of the prompt, of edit i's prompt, of both read together
    h, counterfactual model         the base model with a trained adapter, reading "New fact: ..."
    z_i                             the edit, in the memory
    soft mixing                     `soft`: (1 - beta) p_f + beta p_h
    training                        `training.py` (`emend train --method serac`)

Deviations: g encodes texts by the base model's own states at the last token (the inputs of two
late down-projections) and a trained linear head, where the paper trains a DistilBERT; any
sentence-transformers model can take their place. The edit's prompt is encoded without its target.
h is the base model itself with an adapter and not a small model of its own, so that the two have
one vocabulary. The threshold is set on validation edits and not at 0.5. The cross form reads only
the nearest edits by the embedding form. Texts out of scope are trained against the nearest edit of
a batch. An untrained state refuses to edit. Where h is trained elsewhere and a prompt is in scope
that names an edit's subject, `named_memory` makes the memory (`emend.persona`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from emend._settings import Range
from emend.editing.rows import whole_rows
from emend.editing.session import Session
from emend.errors import InvalidInput
from emend.methods._method import method
from emend.methods._training import load_state, state_directory
from emend.methods.serac._patch import NAME, NAMED, ScopePatch, ScopeState, named_memory
from emend.patches import MemoryPatch, describe_base
from emend.retrieval.naming import check_description

__all__ = ["SeracConfig", "named_memory", "serac"]


@dataclass(frozen=True)
class SeracConfig:
    """Settings of SERAC."""

    state: str | None = None
    """Directory of the trained state; by default the one that the model itself brings."""
    soft: bool = False
    """Whether both models answer, weighted by how much a prompt is in scope."""
    threshold: Annotated[float, Range(above=0, below=1)] | None = None
    """How much a prompt must be in the scope of an edit, 0 to 1 (published: 0.5); by default what
    was best in training."""
    allow_other_base: bool = False
    """Whether to use a state that was trained on a model with other weights."""


@method(
    title="SERAC: a memory of edits, a trained scope classifier, a counterfactual model",
    paper="Mitchell et al. 2022, arXiv 2206.06520",
    when="edits in milliseconds, rewordings too, once it is trained; answers take twice the time",
    avoid="a model without a trained classifier; an engine that loads only weights or adapters",
    continues="append",
    order_invariant=True,
)
def serac(session: Session, config: SeracConfig) -> ScopePatch:
    """Add edits to the memory of a trained state (`emend train --method serac`)."""
    model, tokenizer, edits = session.model, session.tokenizer, session.edits
    previous = session.memory
    whole_rows(tokenizer, edits, "{}")  # refuses subjects without tokens
    state = _state(model, config, previous)
    patch = state.memory(
        model,
        tokenizer,
        (*(previous.edits if previous else ()), *edits),
        dataclasses.asdict(config),
        previous.tensors.get("vectors") if previous else None,
        soft=config.soft,
        threshold=config.threshold or state.details["threshold"],
    )
    return dataclasses.replace(patch, timing=session.record()["timing"])


def _state(model: Any, config: SeracConfig, previous: MemoryPatch | None) -> ScopeState:
    """Return what was trained: that of the previous memory, or what its directory holds.

    Raises:
        MissingFile: There is none; the message states how to train one.
        InvalidInput: It was trained for another model, or with another encoder than the memory.
    """
    if previous is not None and config.state is None:
        tensors = {name: t for name, t in previous.tensors.items() if name != "vectors"}
        return ScopeState(tensors, previous.details, previous.base)
    if previous is not None and previous.details["form"] == NAMED:
        raise InvalidInput(
            "the memory's scope is what names a subject, and a trained state was given for it: "
            "leave state out, or make a memory of its own"
        )
    base = describe_base(model)
    directory = state_directory(NAME, model, config.state)
    tensors, card = load_state(directory, NAME, base, allow_other_base=config.allow_other_base)
    if previous is not None:
        check_description(card["details"]["encoder"], previous.details["encoder"])
    return ScopeState(tensors, card["details"], base)
