"""EMMET: ROME for a batch. Every key gets its value exactly, and all others move the least.

Gupta et al. 2024, "A Unified Framework for Model Editing", arXiv 2403.14236, equation 8.

    Delta = R (K^T C^-1 K + lambda I)^-1 K^T C^-1,    R = V* - W K

    paper    here                             what
    k_i      value.keys.mean(0)               mean key at the subject's last token
    v_i      value.sought                     what the down-projection should put out
    W k_i    value.outputs.mean(0)            what it puts out now
    C_0      `keyvalue.priors`                second moment of all keys
    lambda   weight                           0 would be equality; see below

With one edit and lambda = 0 this is R-ROME. Where this deviates from the authors' code: one key,
the mean over contexts, stands throughout (as in R-ROME, so that W' k = v holds at it), with ROME's
layer and contexts; C has a ridge; the published lambda_0, a factor on C, only changes the balance
with lambda, and is left out; lambda counts for one edit too, so that the patch is one function of
the set of edits. K^T C^-1 K grows with the key's length (about the inner width), so that the
published lambda = 0.1 is next to equality at any size.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.keyvalue import sample_templates, search_values
from emend.keyvalue.assemble import assemble, search_settings
from emend.keyvalue.joint import solve_jointly
from emend.keyvalue.priors import metric_of, prior_for
from emend.keyvalue.solvers import RIDGE
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import WeightPatch


@dataclass(frozen=True)
class EmmetConfig:
    """Settings of EMMET. Those that are None are taken from the model's shape."""

    layer: int | None = None
    """Block to edit; by default at 0.17 of the depth (gated or rotary) or 0.35 (others)."""
    weight: float = 0.1
    """Lambda; 0 writes every value exactly, and fails where two keys are the same."""
    steps: int | None = None
    """Forward passes of the search; by default 25 (gated or rotary) or 20."""
    learning_rate: float = 0.5
    """Step size of Adam."""
    weight_decay: float | None = None
    """Factor on |delta| / |v0|^2; by default 1e-3 (gated or rotary) or 0.5."""
    clamp: float = 4.0
    """Bound on |delta| / |v0|."""
    kl_factor: float = 0.0625
    """Factor on the KL divergence that keeps what the subject is."""
    templates: tuple[str, ...] | None = None
    """Contexts, each with one "{}", the bare one first; by default sampled from the model."""
    seed: int = 0
    """Seed of the sampled contexts."""
    texts: tuple[str, ...] | None = None
    """Texts for the second moment; by default the lab's corpus for its models, else none."""
    ridge: float = RIDGE
    """Ridge on the second moment, in parts of its mean diagonal."""
    cache: bool = True
    """Keep second moments on disk, under $EMEND_CACHE or ~/.cache/emend."""


@method(
    title="EMMET: a batch of facts in one layer, each written (nearly) exactly",
    paper="Gupta et al. 2024, arXiv 2403.14236",
    when="up to some hundred facts that must all be there; the same patch in any order",
    order_free=True,
)
def emmet(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: EmmetConfig) -> WeightPatch:
    """Seek a value for each edit and write all of them in one layer."""
    view = ModelView(model)
    layer = _layer(view, config.layer)
    started = time.perf_counter()
    templates = config.templates or sample_templates(model, tokenizer, seed=config.seed)
    prior = prior_for(view, tokenizer, [layer], config.texts, cache=config.cache)
    prepared = time.perf_counter()
    settings = search_settings(view, config)
    ordered = sorted(edits, key=lambda edit: edit.id)  # so that any order sums alike
    values = search_values(view, tokenizer, ordered, templates, layer, settings)
    searched = time.perf_counter()
    keys = torch.stack([value.keys.double().mean(0) for value in values])  # (E, inner)
    residuals = torch.stack(
        [value.sought.double() - value.outputs.double().mean(0) for value in values]
    )  # (E, width)
    metric = metric_of(view, prior, layer, config.ridge)
    change = solve_jointly(metric, keys, residuals, config.weight)
    return assemble(
        view,
        edits,
        {layer: change},
        method="emmet",
        config=dataclasses.replace(
            config, layer=layer, steps=settings.steps, weight_decay=settings.weight_decay
        ),
        templates=templates,
        statistics=prior.note,
        seconds={
            "precompute": prepared - started,
            "search": searched - prepared,
            "solve": time.perf_counter() - searched,
        },
    )


def _layer(view: ModelView, layer: int | None) -> int:
    """The layer to edit: by default ROME's (spec, section 0)."""
    if layer is None:
        return round((0.17 if view.is_gated or view.is_rotary else 0.35) * view.depth)
    if not -view.depth <= layer < view.depth:
        raise InvalidInput(
            f"layer {layer} of a model with {view.depth} blocks: "
            f"take one from 0 to {view.depth - 1}"
        )
    return layer % view.depth
