"""ROME: an MLP layer is a linear memory; write one key-value pair into it.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262; with the
one key of R-ROME, Gupta et al. 2024, "Rebuilding ROME", arXiv 2403.07175.

    W' = W + ((v* - W k*) / (u . k*)) u^T,    u = C^-1 k* / |C^-1 k*|        (ROME, equation 2)

    paper   here                                        what
    k*      keys.mean(0)                                mean key at the subject's last token
    v*      value.sought                                what the down-projection should put out
    W k*    outputs.mean(0)                             what it puts out now
    C       `keyvalue.moments`                          second moment of keys
    u       `solvers.directions`                        direction along which W changes
    kappa   kl_factor                                   weight of KL(after || before) on "s is a"

Where this deviates from the authors' code: k* and W k* are the means over all contexts everywhere,
while that code divides by u . k and subtracts W k of the bare prompt, which makes edits explode
where the two keys differ (R-ROME; ``original=True`` gives the published form). C has a ridge, and
the system is solved in float64 by a Cholesky factor. Several edits at once are each sought on the
unedited model, and the patch is the sum of their changes: they do not know of one another, so
that any can be taken out again; for many edits with like subjects take a method that solves for
them jointly.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.keyvalue import (
    RIDGE,
    Moment,
    SearchSettings,
    Value,
    directions,
    moment_for,
    rank_one,
    sample_templates,
    search_values,
)
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import LowRank, WeightPatch, describe_base


@dataclass(frozen=True)
class RomeConfig:
    """Settings of ROME. Those that are None are taken from the model's shape."""

    layer: int | None = None
    """Block to edit; by default at 0.17 of the depth (gated MLPs) or 0.35 (others)."""
    original: bool = False
    """The published form: key and output of the bare prompt in the update, no ridge, and sums in
    the published order."""
    steps: int | None = None
    """Forward passes of the search; by default 25 (gated MLPs) or 20."""
    learning_rate: float = 0.5
    """Step size of Adam."""
    weight_decay: float | None = None
    """Factor on |delta| / |v0|^2; by default 1e-3 (gated MLPs) or 0.5."""
    clamp: float = 4.0
    """Bound on |delta| / |v0|."""
    kl_factor: float = 0.0625
    """Factor on the KL divergence that keeps what the subject is."""
    templates: tuple[str, ...] | None = None
    """Contexts, each with one "{}", the bare one first; by default sampled from the model."""
    seed: int = 0
    """Seed of the sampled contexts."""
    second_moment: bool = True
    """Weigh keys by the second moment of all keys; False takes the identity."""
    texts: tuple[str, ...] | None = None
    """Texts for the second moment; by default the lab's corpus for its models, else none."""
    ridge: float | None = None
    """Ridge on the second moment, in parts of its mean diagonal; by default 1e-4 (original: 0)."""
    cache: bool = True
    """Keep second moments on disk, under $EMEND_CACHE or ~/.cache/emend."""


@method(
    title="ROME: one fact as one rank-one change of one MLP (R-ROME's key by default)",
    paper="Meng et al. 2022, arXiv 2202.05262; Gupta et al. 2024, arXiv 2403.07175",
    when="one fact, or a few about different subjects; exact, quick and easy to take back",
    order_free=True,
)
def rome(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: RomeConfig) -> WeightPatch:
    """Seek a value for each edit and write it at its key."""
    view = ModelView(model)
    config = filled(config, view)
    assert config.layer is not None
    started = time.perf_counter()
    templates = config.templates or sample_templates(model, tokenizer, seed=config.seed)
    moment, note = _moment(view, tokenizer, config)
    searched = time.perf_counter()
    values = search_values(view, tokenizer, edits, templates, config.layer, search_settings(config))
    change = updates(values, moment, config, [edit.id for edit in edits])
    seconds = time.perf_counter() - searched
    return WeightPatch(
        factors={view.name_of(view.down_projection(config.layer)): change},
        edits=edits,
        method="rome",
        config=_record(config),
        base=describe_base(model),
        templates=tuple(templates),
        statistics=note,
        timing={
            "precompute": searched - started,
            "search": seconds,
            "per_edit": seconds / len(edits),
        },
    )


def filled(config: RomeConfig, view: ModelView) -> RomeConfig:
    """The settings with what is None taken from the model's shape (spec, section 0).

    Raises:
        InvalidInput: A setting has no meaning for this model.
    """
    gated = view.is_gated or view.is_rotary
    layer = round((0.17 if gated else 0.35) * view.depth) if config.layer is None else config.layer
    if not -view.depth <= layer < view.depth:
        raise InvalidInput(
            f"layer {layer} of a model with {view.depth} blocks: "
            f"take one from 0 to {view.depth - 1}"
        )
    steps = (25 if gated else 20) if config.steps is None else config.steps
    if steps < 1:
        raise InvalidInput(f"steps is {steps}, expected at least 1")
    decay = (1e-3 if gated else 0.5) if config.weight_decay is None else config.weight_decay
    ridge = (0.0 if config.original else RIDGE) if config.ridge is None else config.ridge
    return dataclasses.replace(
        config, layer=layer % view.depth, steps=steps, weight_decay=decay, ridge=ridge
    )


def search_settings(config: RomeConfig) -> SearchSettings:
    """What the search takes of the (filled) settings."""
    assert config.steps is not None and config.weight_decay is not None
    return SearchSettings(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        clamp=config.clamp,
        kl_factor=config.kl_factor,
        published_order=config.original,
    )


def updates(
    values: list[Value], moment: Tensor | None, config: RomeConfig, ids: list[str]
) -> LowRank:
    """The rank-one changes of all edits, one row each.

    Raises:
        NumericalFailure: A change is not finite.
    """
    keys = torch.stack([value.keys.mean(0) for value in values])  # (E, inner)
    wanted = directions(moment, keys.cpu(), RIDGE if config.ridge is None else config.ridge)
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


def _moment(
    view: ModelView, tokenizer: Any, config: RomeConfig
) -> tuple[Tensor | None, dict[str, Any]]:
    if not config.second_moment:
        return None, {"kind": "identity", "why": "second_moment is False"}
    assert config.layer is not None
    # The published statistics take every text that is given.
    found: Moment | None
    found, note = moment_for(
        view,
        tokenizer,
        config.layer,
        config.texts,
        cache=config.cache,
        max_tokens=10**12 if config.texts else None,
    )
    return None if found is None else found.matrix, {**note, "ridge": config.ridge}


def _record(config: RomeConfig) -> dict[str, Any]:
    """The settings as the patch keeps them: texts and templates are recorded elsewhere."""
    record = dataclasses.asdict(config)
    del record["texts"], record["templates"], record["cache"]
    return record
