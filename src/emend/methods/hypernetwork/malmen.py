"""MALMEN: many edits at once by a trained network, their changes put together by ridge regression.

Tan et al. 2024, arXiv 2311.04661.

    D_t = -eta (u_t . u~_t) delta~_t                    the change of output wanted at token t, with
                                                        u~, delta~ of MEND's network
    Delta W^T = (U^T U + e^lambda I)^-1 U^T D           the least change that gives all of them

    paper                               here
    hyper-network S_t = phi(u, delta)   `_editing_network.EditingNetwork`
    eta, lambda of a layer              step (times a calibrated size) and ridge of each matrix
    U, D                                inputs and values over all tokens of all edits

Deviations: the system is solved in float64 on the smaller side, so that the factors are the
tokens; the gradient reaches the network through the solution in one pass, and not in two with
the intermediate results on disk (the same gradient). The change is a function of the set of
edits: any order gives the same, but no edit can be taken out alone. An untrained network refuses
to edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from emend._settings import Count
from emend.editing.session import Session
from emend.methods._method import method
from emend.methods.hypernetwork._apply import ApplySettings, edit_by_network
from emend.methods.hypernetwork._editing_network import SteppedNetwork, SteppedSettings
from emend.methods.hypernetwork._network import Factors, NetworkSettings, Reading, Shapes
from emend.patches import WeightPatch


@dataclass(frozen=True)
class MalmenSettings(SteppedSettings):
    """Settings of MALMEN's network and of its training."""

    batch_size: Count = 32
    """Edits in one step; they are put into one change together."""


class Network(SteppedNetwork):
    """Tan et al. 2024; the step scales values, not changes."""

    first: ClassVar[float] = 0.3
    settings_type: ClassVar[type[NetworkSettings]] = MalmenSettings

    def __init__(self, shapes: Shapes, width: int, settings: MalmenSettings) -> None:
        super().__init__(shapes, width, settings)
        self.ridge = nn.Parameter(torch.zeros(len(self.shapes)))  # its logarithm

    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Return Delta W^T = (U^T U + e^lambda I)^-1 U^T D = U^T (U U^T + e^lambda I)^-1 D."""
        found: dict[str, Factors] = {}
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            given = gradients.inputs  # (N, in)
            inputs, deltas = self.editing(name, gradients)
            step = self.step[number] * self.calibration[number]
            values = -step * (given * inputs).sum(1, keepdim=True) * deltas  # (N, out)
            gram = given.double() @ given.double().T
            ridge = self.ridge[number].double().exp() * torch.eye(len(gram), dtype=torch.float64)
            solved = torch.linalg.solve(gram + ridge, values.double()).float()  # (N, out)
            found[name] = Factors(given, solved, None)
        return found


@method(
    title="MALMEN: a trained network edits many facts at once, joined by ridge regression",
    paper="Tan et al. 2024, arXiv 2311.04661",
    when="a batch of edits in milliseconds, once a network is trained for the model",
    avoid="a model without a trained network, or more edits at once than it was trained with",
    continues="joint",
    order_invariant=True,
)
def malmen(session: Session, config: ApplySettings) -> WeightPatch:
    """Edit by a trained network (`emend train --method malmen`)."""
    return edit_by_network(session, config)
