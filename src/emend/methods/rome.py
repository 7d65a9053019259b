"""ROME: an MLP layer is a linear memory; write one key-value pair into it.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262; R-ROME,
Gupta et al. 2024, "Rebuilding ROME", arXiv 2403.07175.

    W' = W + ((v* - W k*) / (u . k*)) u^T,    u = C^-1 k*                    (ROME, equation 2)
    W' = W + delta u^T,    u = C^-1 K (K^T C^-1 K + lambda S)^-1 1           (here)

    paper   here                                        what
    k*, K   value.keys                                  keys at the subject's last token, by context
    v*      value.sought = value.initial + delta        what the down-projection should put out
    C       `editing.priors`                           second moment of keys
    u       `solvers.respond`, `solvers.directions`     direction along which W changes
    S       diagonal of K^T C^-1 K                      response of each key to itself
    kappa   kl_factor                                   weight of KL(after || before) on "s is a"

Where this deviates from the paper, by default:

- The search adds delta to the output of each context, so delta is what is written, along the one
  direction that responds with 1 to the key of every context and least to all other keys
  (``all_keys``). The paper writes at one key: the published code takes that of the bare prompt in
  parts of the equation, R-ROME the mean of all. Where a subject begins its text these are far
  apart, and an edit at the mean hardly acts at the bare prompt.
- What the unedited model states of the subject is held (``statements``), and a target that is
  probable enough is left alone (``enough``): the paper's objective raises its probability without
  end, at the expense of what else the model knows of the subject.
- Six contexts, as MEMIT takes them, in place of 21: more bring nothing that was measured, and
  cost time.
- L-BFGS in place of Adam. C has a ridge, and the system is solved in float64 by a Cholesky factor,
  kept on disk.

``original=True`` gives the published form; ``all_keys=False`` with ``optimizer="adam"``,
``statements=0``, ``enough=1`` and ``clamp=4`` R-ROME. Several edits at once are each sought on the
unedited model, and the patch is the sum of their changes: they do not know of one another, so that
any can be taken out again; for many edits with like subjects take a method that solves for them
jointly. ``sequential=True`` makes them as the published code does a sequence: each on the model
that the earlier ones left, so that their order matters.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from emend._settings import NotNegative
from emend.editing import (
    SearchSettings,
    Value,
    directions,
    rank_one,
    respond,
    sample_templates,
    search_values,
    solve_moment,
)
from emend.editing.assemble import (
    SearchConfig,
    assemble,
    filled_search,
    search_settings,
    single_layer,
)
from emend.editing.contexts import STARTS, begun_templates
from emend.editing.memory import check_edit
from emend.editing.priors import Prior, metric_of, prior_for, ridge_for
from emend.editing.sources import Source, texts_for
from emend.editing.stream import changed
from emend.editing.templates import SAMPLES
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import Factor, LowRank, WeightPatch, add


@dataclass(frozen=True)
class RomeConfig(SearchConfig):
    """Settings of ROME. Those that are None are taken from the model's shape."""

    layer: int | None = None
    """Block to edit; by default at 0.17 of the depth (gated or rotary) or 0.35 (others)."""
    original: bool = False
    """The published form: key and output of the bare prompt in the update, no ridge, and sums in
    the published order."""
    sequential: bool = False
    """Make each edit on the model that the earlier ones left, as published for a sequence."""
    second_moment: bool = True
    """Weigh keys by the second moment of all keys; False takes the identity."""
    ridge: NotNegative | None = None
    """Ridge on the second moment, in parts of its mean diagonal; by default 1e-4, and 1
    over samples of the model's own (original: 0)."""


@method(
    title="ROME: one fact as one rank-one change of one MLP, which keeps the subject's other facts",
    paper="Meng et al. 2022, arXiv 2202.05262; Gupta et al. 2024, arXiv 2403.07175",
    when="one fact, or a few about different subjects; exact, quick and easy to take back",
    order_free=True,
    by_subject=True,
)
def rome(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: RomeConfig) -> WeightPatch:
    """Seek a value for each edit and write it at its key."""
    view = ModelView(model)
    config = filled(config, view)
    started = time.perf_counter()
    source = texts_for(view, tokenizer, config.texts) if config.second_moment else None
    if config.ridge is None and source is not None:
        config = dataclasses.replace(config, ridge=ridge_for(source))
    count = len(config.templates or ()) or (SAMPLES if config.original else 1 + len(STARTS))
    check_edit(view, tokenizer, edits, count, [_of(config)], has_moments=source is not None)
    sampled = sample_templates if config.original else begun_templates
    templates = config.templates or sampled(model, tokenizer, seed=config.seed)
    prior, note = _prior(view, tokenizer, config, source)
    prepared = time.perf_counter()
    layer, settings = _of(config), search_of(config, view)
    change: Factor | None = None
    for part in [(edit,) for edit in edits] if config.sequential else [edits]:
        with changed(view.down_projection(layer), change):
            values = search_values(view, tokenizer, part, templates, layer, settings)
        solve = partial(_solved, view, prior, config)
        added = updates(values, solve, config, [edit.id for edit in part])
        change = added if change is None else add(change, added)
    assert change is not None
    return assemble(
        view,
        edits,
        {layer: change},
        method="rome",
        config=config,
        templates=templates,
        statistics=note,
        seconds={"precompute": prepared - started, "search": time.perf_counter() - prepared},
    )


def filled(config: RomeConfig, view: ModelView) -> RomeConfig:
    """The settings with what is None taken from the model's shape (spec, section 0).

    Raises:
        InvalidInput: A setting has no meaning for this model.
    """
    settings = search_of(config, view)
    all_keys = not config.original if config.all_keys is None else config.all_keys
    return dataclasses.replace(
        filled_search(config, settings, all_keys),
        layer=single_layer(view, config.layer),
        ridge=0.0 if config.original and config.ridge is None else config.ridge,
    )


def search_of(config: RomeConfig, view: ModelView) -> SearchSettings:
    """What the search takes of the settings."""
    settings = search_settings(view, config, published=config.original)
    return dataclasses.replace(settings, published_order=config.original)


def updates(
    values: list[Value], solve: Callable[[Tensor], Tensor], config: RomeConfig, ids: list[str]
) -> LowRank:
    """The rank-one changes of all edits, one row each.

    Args:
        values: What was sought.
        solve: C^-1 k for keys k, (E, inner) -> (E, inner) float64.
        config: The settings.
        ids: Those of the edits.

    Raises:
        NumericalFailure: A change is not finite.
    """
    if config.all_keys:
        return _at_all_keys(values, solve, ids)
    keys = torch.stack([value.keys.mean(0) for value in values])  # (E, inner)
    wanted = directions(solve(keys.cpu()))
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    for value, key, direction in zip(values, keys.cpu(), wanted, strict=True):
        output = value.outputs.mean(0)
        if config.original:
            key, output = value.keys[0].cpu(), value.outputs[0]
        u, v = rank_one(direction, key, output.cpu(), value.sought.cpu())
        rows.append(u)
        columns.append(v)
    down, up = torch.stack(rows), torch.stack(columns, dim=1)  # (E, inner), (width, E)
    if not bool(down.isfinite().all() and up.float().isfinite().all()):
        raise NumericalFailure(
            "the change of the weights is not finite: lower learning_rate, or raise the ridge"
        )
    return LowRank(down.float(), up.float(), tuple(ids))


def _at_all_keys(values: list[Value], solve: Callable[[Tensor], Tensor], ids: list[str]) -> LowRank:
    """Rank-one changes delta u^T with u . k = 1 at the key of each context, or nearly."""
    rows: list[Tensor] = []
    for value in values:
        keys = value.keys.cpu().double()  # (C, inner)
        rows.append(respond(keys, solve(value.keys.cpu())))
    down = torch.stack(rows)  # (E, inner)
    up = torch.stack([value.delta.cpu() for value in values], dim=1)  # (width, E)
    return LowRank(down.float(), up.float(), tuple(ids))


def _prior(
    view: ModelView, tokenizer: Any, config: RomeConfig, source: Source | None
) -> tuple[Prior | None, dict[str, Any]]:
    if source is None:
        return None, {"kind": "identity", "why": "second_moment is False"}
    prior = prior_for(view, tokenizer, [_of(config)], source, cache=config.cache)
    return prior, {**prior.note, "ridge": config.ridge}


def _solved(view: ModelView, prior: Prior | None, config: RomeConfig, keys: Tensor) -> Tensor:
    """C^-1 k of keys (E, inner), float64: by the factor kept on disk, or as published."""
    ridge = config.ridge
    if prior is None or ridge is None:
        return keys.double()
    if config.original:
        return solve_moment(prior.moment(_of(config)), keys.T, ridge).T
    metric = metric_of(view, prior, _of(config), ridge)
    return metric.back(metric.whiten(keys.T)).T.cpu()


def _of(config: RomeConfig) -> int:
    """The layer of filled settings."""
    assert config.layer is not None
    return config.layer
