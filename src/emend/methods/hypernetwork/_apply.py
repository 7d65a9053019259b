"""Editing with a trained hypernetwork: one gradient pass and one pass through the network."""

from __future__ import annotations

import dataclasses

import torch

from emend.editing.session import Session
from emend.edits import Edit
from emend.methods._training import state_directory
from emend.methods.hypernetwork._even import rows_to_read
from emend.methods.hypernetwork._network import Factors, load_network, read_edits_for
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


def edit_by_network(session: Session, config: ApplySettings) -> WeightPatch:
    """Make the patch that a trained network computes for edits.

    Raises:
        MissingFile: There is no trained network; the message states how to train one.
        InvalidInput: It was trained on another model.
        NumericalFailure: A gradient is not finite.
    """
    base, edits = describe_base(session.model), session.edits
    directory = state_directory(session.method, session.model, config.state)
    other = config.allow_other_base
    network = load_network(directory, session.method, base, allow_other_base=other)
    session.lap("precompute")
    rows = rows_to_read(session.tokenizer, edits, network.settings.objective)
    reading = read_edits_for(network, session.view, session.tokenizer, edits, rows, BATCH)
    with torch.no_grad():
        found = network(reading)
    return session.patch({name: _low_rank(factors, edits) for name, factors in found.items()})


def _low_rank(factors: Factors, edits: tuple[Edit, ...]) -> LowRank:
    columns = None
    if factors.rows is not None:
        columns = tuple(edits[number].id for number in factors.rows.tolist())
    return LowRank(factors.inputs, factors.outputs.T, columns)
