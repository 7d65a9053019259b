"""MEND's network: u and delta of each token, normalised and mended, times a learnt step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emend.hypernetworks._editing import EditingNetworks
from emend.hypernetworks._network import Factors, Hypernetwork, NetworkSettings, Reading, Shapes

FIRST = 0.1
"""Root mean square of what the first change adds at its own tokens, of what the matrix puts out."""


@dataclass(frozen=True)
class MendSettings(NetworkSettings):
    """Settings of MEND's network and of its training."""

    rank: int = 64
    """Rank of each layer of the editing networks (1920 in the paper)."""
    depth: int = 2
    """Layers of each editing network."""
    edit_weight: float = 1.0
    """Weight of the edit's loss (c_edit; 0.1 in the paper)."""
    locality_weight: float = 1.0
    """Weight of the locality loss (c_loc)."""
    step_learning_rate: float = 1e-2
    """Step size of Adam for the step of each matrix, which begins at 1 (of a calibrated size)."""
    clip: float = 100.0
    """Largest norm of a gradient."""


class mend(Hypernetwork):  # noqa: N801 - found by the module's name
    """Mitchell et al. 2022, equations 3 and 4; see `emend.methods.mend`."""

    settings_type: ClassVar[type[NetworkSettings]] = MendSettings

    def __init__(self, shapes: Shapes, width: int, settings: MendSettings) -> None:
        super().__init__(shapes, width, settings)
        self.editing = EditingNetworks(self.shapes, settings.rank, settings.depth, settings.seed)
        self.step = nn.Parameter(torch.ones(len(self.shapes)))
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(len(self.shapes)))

    def observe(self, reading: Reading) -> None:
        """See `Hypernetwork.observe`; the first batch also says what size of step is small."""
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
        """Delta W = -alpha sum_t delta~_t u~_t^T."""
        found: dict[str, Factors] = {}
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            inputs, deltas = self.editing(name, gradients)
            step = self.step[number] * self.calibration[number]
            found[name] = Factors(inputs, -step * deltas, gradients.rows)
        return found

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, with a step of its own for alpha."""
        settings: Any = self.settings
        networks = {"params": list(self.editing.parameters()), "lr": settings.learning_rate}
        steps = {"params": [self.step], "lr": settings.step_learning_rate}
        return torch.optim.Adam([networks, steps])

    def after_gradient(self) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self.parameters(), self.settings.clip)

    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """c_edit L_edit + c_loc L_loc."""
        return self.settings.edit_weight * edited + self.settings.locality_weight * moved
