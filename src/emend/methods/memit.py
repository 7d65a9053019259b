"""MEMIT: write many facts at once, spread over several layers, by least squares.

Meng et al. 2022, "Mass-Editing Memory in a Transformer", arXiv 2210.07229.

    Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,    R_l = (z - h) / (L - l + 1)   (eq. 14, 20)

    paper     here                               what
    z_i       targets.wanted                     what the last edited block should put out
    h_i       stream's `Reading.hidden`          what it puts out on the layers built so far
    k_i       keys of `spread`                   key at the subject's last token, over contexts
    C_l       `keyvalue.priors`                  second moment of all keys
    lambda    weight                             tokens of text that each edit is weighed against

Where this deviates from the authors' code: all values are sought on the unedited model and all
edits are sorted by id, so that the patch is a function of the set of edits (canonical build);
C has a ridge, and systems are solved in float64 on their smaller side; lambda is by default in
proportion to the key's length, since k^T C^-1 k of a usual key is that length: 0.1 times it, found
on the lab's models (the published 15,000 is 0.9 times the inner width of GPT-J, and 20,000 is 3.1
times that of GPT-2 XL). Where a model puts a norm between MLP and stream (Gemma 2, OLMo 2), one
layer is edited, at that MLP's output.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from emend.edits import Edit
from emend.keyvalue.assemble import assemble, search_settings
from emend.keyvalue.contexts import begun_templates
from emend.keyvalue.joint import solve_jointly
from emend.keyvalue.priors import metric_of, prior_for
from emend.keyvalue.solvers import RIDGE
from emend.keyvalue.spread import check_layers, seek_targets, spread
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import Dense, LowRank, WeightPatch


@dataclass(frozen=True)
class MemitConfig:
    """Settings of MEMIT. Those that are None are taken from the model's shape."""

    layers: tuple[int, ...] | None = None
    """Blocks to edit; by default five ending at 0.27 (gated or rotary) or 0.35 of the depth."""
    weight: float | None = None
    """Lambda; by default 0.1 times the inner width (published: 15000 GPT-J, 20000 GPT-2 XL)."""
    steps: int | None = None
    """Forward passes of the search; by default 25 (gated or rotary) or 20."""
    learning_rate: float = 0.5
    """Step size of Adam."""
    weight_decay: float | None = 0.5
    """Factor on |delta| / |z0|^2; None takes 1e-3 (gated or rotary) or 0.5."""
    clamp: float = 0.75
    """Bound on |delta| / |z0|."""
    kl_factor: float = 0.0625
    """Factor on the KL divergence that keeps what the subject is."""
    templates: tuple[str, ...] | None = None
    """Contexts, each with one "{}", the bare one first; by default sampled from the model."""
    seed: int = 0
    """Seed of the sampled contexts."""
    texts: tuple[str, ...] | None = None
    """Texts for the second moments; by default the lab's corpus for its models, else none."""
    ridge: float = RIDGE
    """Ridge on the second moment, in parts of its mean diagonal."""
    cache: bool = True
    """Keep second moments on disk, under $EMEND_CACHE or ~/.cache/emend."""


WEIGHT = 0.1
"""Lambda by default, in inner widths."""


@method(
    title="MEMIT: many facts at once, spread over several layers by least squares",
    paper="Meng et al. 2022, arXiv 2210.07229",
    when="from ten to some thousand facts at once; the same patch in whatever order they come",
    order_free=True,
)
def memit(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: MemitConfig) -> WeightPatch:
    """Seek a value for each edit and write all of them layer by layer."""
    view = ModelView(model)
    layers = check_layers(view, config.layers)
    started = time.perf_counter()
    templates = config.templates or begun_templates(model, tokenizer, seed=config.seed)
    prior = prior_for(view, tokenizer, layers, config.texts, cache=config.cache)
    prepared = time.perf_counter()
    settings = search_settings(view, config)
    targets = seek_targets(view, tokenizer, edits, templates, layers, settings)
    searched = time.perf_counter()

    def solve(layer: int, keys: Tensor, residuals: Tensor) -> LowRank | Dense:
        metric = metric_of(view, prior, layer, config.ridge)
        weight = WEIGHT * view.inner(layer) if config.weight is None else config.weight
        return solve_jointly(metric, keys, residuals, weight)

    changes = spread(view, tokenizer, targets, templates, layers, solve)
    return assemble(
        view,
        edits,
        changes,
        method="memit",
        config=dataclasses.replace(config, layers=layers, steps=settings.steps),
        templates=templates,
        statistics=prior.note,
        seconds={
            "precompute": prepared - started,
            "search": searched - prepared,
            "solve": time.perf_counter() - searched,
        },
    )
