"""Editing with a trained hypernetwork: one gradient pass and one pass through the network."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from emend.editing.rows import context_rows
from emend.edits import Edit
from emend.methods._training import state_directory
from emend.methods.hypernetwork._network import Factors, load_network, read_edits_for
from emend.models import ModelView
from emend.patches import LowRank, WeightPatch, describe_base

BATCH = 32
"""Edits in one forward and backward pass."""


@dataclasses.dataclass(frozen=True)
class ApplySettings:
    """Settings of an edit by a hypernetwork."""

    state: str | None = None
    """Directory of the trained network; by default the one that the model itself brings."""
    allow_other_base: bool = False
    """Whether to use a network that was trained on a model with other weights."""


def edit_by_network(
    method: str, model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: ApplySettings
) -> WeightPatch:
    """Make the patch that a trained network computes for edits.

    Raises:
        MissingFile: There is no trained network; the message states how to train one.
        InvalidInput: It was trained on another model.
        NumericalFailure: A gradient is not finite.
    """
    base = describe_base(model)
    directory = state_directory(method, model, config.state)
    network = load_network(directory, method, base, allow_other_base=config.allow_other_base)
    started = time.perf_counter()
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    reading = read_edits_for(network, ModelView(model), tokenizer, edits, rows, BATCH)
    with torch.no_grad():
        found = network(reading)
    seconds = time.perf_counter() - started
    return WeightPatch(
        factors={name: _low_rank(factors, edits) for name, factors in found.items()},
        edits=edits,
        method=method,
        config=dataclasses.asdict(config),
        base=base,
        templates=("{}",),
        timing={"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)},
    )


def _low_rank(factors: Factors, edits: tuple[Edit, ...]) -> LowRank:
    columns = None
    if factors.rows is not None:
        columns = tuple(edits[number].id for number in factors.rows.tolist())
    return LowRank(factors.inputs, factors.outputs.T, columns)
