"""FT-L and FT-M: a few steps of Adam on down-projections, optionally in a box.

Zhu et al. 2020, arXiv 2012.00363 (the box); Meng et al. 2022, arXiv 2202.05262 (FT-L); Zhang et
al. 2024, arXiv 2401.01286 (FT-M).

    minimise over Delta:   mean over edits of  L(x, o; W + Delta)      subject to |Delta_ij| <= eps

    objective   L(x, o), prompt x and target tokens o_1..o_n
    "ft-m"      -1/n sum_t log p(o_t | x, o_1..o_(t-1)): ordinary cross-entropy on the target
    "ft-l"      -1/n sum_t log p(o_t | x): all target tokens at the prompt's last position, which
                is wrong for targets of several tokens, and published so

Adam takes no step on a batch whose loss is below 0.01, and ends when the mean over all batches of
a pass is. Naming trap: in ROME's tables "FT+L" means the box; in EasyEdit "FT-L" means the
objective, usually without a box.

Where this deviates from the authors' code: the model is never changed. What is trained is the
change itself, in float32, added to the output of each down-projection by a hook; for Adam without
weight decay that is the same as training the matrix. Only the blocks from the first trained one
up are run. The change of one matrix is shared by all edits, so that none can be taken out alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, Positive
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.keyvalue.answers import AnswerBatch, answer_batches
from emend.methods._method import method
from emend.models import ModelView
from emend.models._forward import evaluating
from emend.models._hooks import changing, frozen, hooked
from emend.patches import Dense, WeightPatch, describe_base

ENOUGH = 1e-2
"""Loss below which there is nothing left to learn."""


@dataclass(frozen=True)
class FtConfig:
    """Settings of fine-tuning."""

    objective: Literal["ft-m", "ft-l"] = "ft-m"
    """What is minimised: cross-entropy on the target (ft-m) or at the last prompt token (ft-l)."""
    layers: tuple[int, ...] | None = None
    """Blocks whose down-projections are trained; by default the one at 0.67 of the depth."""
    steps: Count = 25
    """Passes over all edits."""
    learning_rate: Positive = 5e-4
    """Step size of Adam."""
    box: Positive | None = None
    """Bound on the change of each weight (the L-infinity box); None for none."""
    batch_size: Count = 32
    """Edits in one step."""


@method(
    title="FT: fine-tune one MLP matrix on the new facts (FT-M; objective=ft-l for FT-L)",
    paper="Zhu et al. 2020, arXiv 2012.00363; Zhang et al. 2024, arXiv 2401.01286",
    when="a baseline to compare with; quick, but other facts about like subjects may change",
)
def ft(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: FtConfig) -> WeightPatch:
    """Train the change of the chosen matrices on all edits together."""
    started = time.perf_counter()
    view = ModelView(model)
    config = filled(config, view)
    assert config.layers is not None
    with evaluating(model), frozen(model):
        batches = answer_batches(
            *(view, tokenizer, edits, config.layers[0], config.batch_size),
            at_prompt=config.objective == "ft-l",
        )
        deltas = _train(view, batches, config)
    seconds = time.perf_counter() - started
    names = {layer: view.name_of(view.down_projection(layer)) for layer in config.layers}
    return WeightPatch(
        factors={names[layer]: Dense(delta) for layer, delta in deltas.items()},
        edits=edits,
        method="ft",
        config=dataclasses.asdict(config),
        base=describe_base(model),
        templates=("{}",),
        timing={"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)},
    )


def filled(config: FtConfig, view: ModelView) -> FtConfig:
    """The settings checked, with layers from the model's depth.

    Raises:
        InvalidInput: A setting has no meaning.
    """
    layers = config.layers
    if layers is None:
        layers = (view.nearest_editable(round(0.67 * view.depth)),)
    layers = view.numbered(layers)
    for layer in layers:
        view.down_projection(layer)  # refused now where it cannot be edited
    return dataclasses.replace(config, layers=tuple(sorted(set(layers))))


def _train(view: ModelView, batches: Sequence[AnswerBatch], config: FtConfig) -> dict[int, Tensor]:
    """The change (out, in) of each layer's matrix."""
    assert config.layers is not None
    deltas = {
        layer: torch.zeros(
            view.width, view.inner(layer), device=view.device(layer), requires_grad=True
        )
        for layer in config.layers
    }
    optimizer = torch.optim.Adam(list(deltas.values()), lr=config.learning_rate)
    for step in progress(range(config.steps), "fine-tuning"):
        losses: list[float] = []
        for batch in batches:
            loss = _loss(view, batch, deltas)
            losses.append(float(loss.detach()))
            if losses[-1] != losses[-1] or losses[-1] == float("inf"):
                raise NumericalFailure(
                    f"the loss is {losses[-1]} at step {step}, expected a finite number: "
                    "lower learning_rate, or load the model in float32"
                )
            if losses[-1] < ENOUGH:
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if config.box is not None:
                with torch.no_grad():
                    for delta in deltas.values():
                        delta.clamp_(-config.box, config.box)
        if sum(losses) / len(losses) < ENOUGH:
            break
    return {layer: delta.detach() for layer, delta in deltas.items()}


def _loss(view: ModelView, batch: AnswerBatch, deltas: dict[int, Tensor]) -> Tensor:
    with ExitStack() as stack:
        for layer, delta in deltas.items():
            stack.enter_context(hooked(view.down_projection(layer), changing((delta,))))
        return batch.loss(view)
