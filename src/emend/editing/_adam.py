"""Adam over rows that come and go, with the arithmetic of `torch.optim.Adam`."""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam for a batch of independent vectors that started together.

    Rows can be dropped (`select`), which an optimizer of torch does not allow.

    Args:
        parameters: (E, width), only its shape, dtype and device are used.
        learning_rate: Step size.
    """

    def __init__(self, parameters: Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.steps = 0
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)

    def step(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """The parameters (E, width) after one step along their gradient."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = self.learning_rate / (1 - BETAS[0] ** self.steps)
        root = (1 - BETAS[1] ** self.steps) ** 0.5
        scale = (self.square.sqrt() / root).add_(EPSILON)
        return parameters.addcdiv(self.mean, scale, value=-size)

    def select(self, kept: Tensor) -> None:
        """Drop the rows where ``kept`` (E,) bool is false."""
        self.mean, self.square = self.mean[kept], self.square[kept]
