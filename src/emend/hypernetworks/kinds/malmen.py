"""MALMEN's network: MEND's per token, and one ridge regression over all tokens of all edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from emend._settings import Count
from emend.hypernetworks._network import Factors, NetworkSettings, Reading, Shapes
from emend.hypernetworks._stepped import SteppedNetwork, SteppedSettings


@dataclass(frozen=True)
class MalmenSettings(SteppedSettings):
    """Settings of MALMEN's network and of its training."""

    batch_size: Count = 32
    """Edits in one step; they are put into one change together."""


class malmen(SteppedNetwork):  # noqa: N801 - found by the module's name
    """Tan et al. 2024; see `emend.methods.malmen`. Its step scales values, not changes."""

    first: ClassVar[float] = 0.3
    settings_type: ClassVar[type[NetworkSettings]] = MalmenSettings

    def __init__(self, shapes: Shapes, width: int, settings: MalmenSettings) -> None:
        super().__init__(shapes, width, settings)
        self.ridge = nn.Parameter(torch.zeros(len(self.shapes)))  # its logarithm

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
