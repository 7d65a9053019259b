"""What MEND and MALMEN share: editing networks, and a learnt step for each matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emend._settings import Count, NotNegative, Positive
from emend.methods.hypernetwork._editing import EditingNetworks
from emend.methods.hypernetwork._network import Hypernetwork, NetworkSettings, Reading, Shapes


@dataclass(frozen=True)
class SteppedSettings(NetworkSettings):
    """Settings of editing networks and of their training."""

    rank: Count = 64
    """Rank of each layer of the editing networks (1920 in the papers)."""
    depth: Count = 2
    """Layers of each editing network."""
    edit_weight: NotNegative = 1.0
    """Weight of the edit's loss (c_edit; 0.1 in MEND's paper)."""
    locality_weight: NotNegative = 1.0
    """Weight of the locality loss (c_loc)."""
    step_learning_rate: NotNegative = 1e-2
    """Step size of Adam for what is learnt of each matrix beside the networks, as its step."""
    clip: Positive = 100.0
    """Largest norm of a gradient."""


class SteppedNetwork(Hypernetwork):
    """Editing networks, and for each matrix a step, which begins at 1 (of a calibrated size).

    Attributes:
        first: Root mean square of what the first change adds at its own tokens, as a share of
            what the matrix puts out there.
    """

    first: ClassVar[float]
    settings_type: ClassVar[type[NetworkSettings]] = SteppedSettings

    def __init__(self, shapes: Shapes, width: int, settings: SteppedSettings) -> None:
        super().__init__(shapes, width, settings)
        self.editing = EditingNetworks(self.shapes, settings.rank, settings.depth, settings.seed)
        self.step = nn.Parameter(torch.ones(len(self.shapes)))
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(len(self.shapes)))

    def observe(self, reading: Reading) -> None:
        """See `Hypernetwork.observe`; the first batch also says what size of step is usual."""
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            self.editing.observe(name, gradients)
            if self.calibration[number] == 0 and len(gradients.inputs):
                with torch.no_grad():
                    inputs, _ = self.editing(name, gradients)
                    overlap = (inputs * gradients.inputs).sum(1).square().mean().sqrt()
                    size = self.first * gradients.size / overlap.clamp(min=1e-12)
                    self.calibration[number] = size

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, with a step size of its own for what is not of the editing networks."""
        settings: Any = self.settings
        networks = {"params": list(self.editing.parameters()), "lr": settings.learning_rate}
        own = [parameter for _, parameter in self.named_parameters(recurse=False)]
        return torch.optim.Adam([networks, {"params": own, "lr": settings.step_learning_rate}])

    def after_gradient(self) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self.parameters(), self.settings.clip)

    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """c_edit L_edit + c_loc L_loc."""
        return self.settings.edit_weight * edited + self.settings.locality_weight * moved
