"""MALMEN's network: MEND's per token, and one ridge regression over all tokens of all edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emend.hypernetworks._editing import EditingNetworks
from emend.hypernetworks._network import Factors, Hypernetwork, NetworkSettings, Reading, Shapes

FIRST = 0.3
"""Root mean square of the first values at their tokens, of what the matrix puts out."""


@dataclass(frozen=True)
class MalmenSettings(NetworkSettings):
    """Settings of MALMEN's network and of its training."""

    rank: int = 64
    """Rank of each layer of the editing networks (1920 in the paper)."""
    depth: int = 2
    """Layers of each editing network."""
    batch_size: int = 32
    """Edits in one step; they are put into one change together."""
    edit_weight: float = 1.0
    """Weight of the edit's loss."""
    locality_weight: float = 1.0
    """Weight of the locality loss."""
    step_learning_rate: float = 1e-2
    """Step size of Adam for the step and the ridge of each matrix."""
    clip: float = 100.0
    """Largest norm of a gradient."""


class malmen(Hypernetwork):  # noqa: N801 - found by the module's name
    """Tan et al. 2024; see `emend.methods.malmen`."""

    settings_type: ClassVar[type[NetworkSettings]] = MalmenSettings

    def __init__(self, shapes: Shapes, width: int, settings: MalmenSettings) -> None:
        super().__init__(shapes, width, settings)
        self.editing = EditingNetworks(self.shapes, settings.rank, settings.depth, settings.seed)
        self.step = nn.Parameter(torch.ones(len(self.shapes)))
        self.ridge = nn.Parameter(torch.zeros(len(self.shapes)))  # its logarithm
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(len(self.shapes)))

    def observe(self, reading: Reading) -> None:
        """See `Hypernetwork.observe`; the first batch also says what size of value is usual."""
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            self.editing.observe(name, gradients)
            if self.calibration[number] == 0 and len(gradients.inputs):
                with torch.no_grad():
                    inputs, _ = self.editing(name, gradients)
                    overlap = (inputs * gradients.inputs).sum(1).square().mean().sqrt()
                    size = FIRST * gradients.size / overlap.clamp(min=1e-12)
                    self.calibration[number] = size

    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Delta W^T = (U^T U + e^lambda I)^-1 U^T D = U^T (U U^T + e^lambda I)^-1 D."""
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

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, with a step of its own for the step and the ridge."""
        settings: Any = self.settings
        networks = {"params": list(self.editing.parameters()), "lr": settings.learning_rate}
        steps = {"params": [self.step, self.ridge], "lr": settings.step_learning_rate}
        return torch.optim.Adam([networks, steps])

    def after_gradient(self) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self.parameters(), self.settings.clip)

    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """L_edit + L_loc, weighted."""
        return self.settings.edit_weight * edited + self.settings.locality_weight * moved
