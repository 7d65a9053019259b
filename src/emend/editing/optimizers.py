"""Adam and trust-region L-BFGS for a batch of independent rows, which can be dropped.

Adam has the arithmetic of `torch.optim.Adam`. L-BFGS gives each row its own curvature and trust
radius: Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization",
doi 10.1007/BF01589116, within a ball instead of along a line:

    d = -H g, cut to the radius         H from the last pairs s = x' - x, y = g' - g
    f(x + d) < f(x): x moves there      and the ball may grow, where the model was good
    else:            x stays            and the ball shrinks; the pair is used all the same

One evaluation is one step, as with Adam; there is no line search.
"""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam for a batch of independent vectors that started together.

    Rows can be dropped (`select`), which an optimizer of torch does not allow.

    Args:
        parameters: (E, hidden_size), of which only shape, dtype and device are used.
        learning_rate: Step size.
    """

    def __init__(self, parameters: Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.steps = 0
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)

    def step(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """Return the parameters (E, hidden_size) after one step."""
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


PAIRS = 10
"""Most pairs stored."""

SHRINKS, GROWS = 0.4, 2.0
"""Radius after a step that raised the loss, and after a good one, in lengths of the step."""

GOOD = 0.25
"""A good step lowers the loss by more than this part of what the gradient predicts."""

CURVED = 1e-8
"""Least cosine of s and y for a pair to be used."""


class Lbfgs:
    """L-BFGS for a batch of independent vectors that started together.

    Args:
        parameters: (E, P, hidden_size), of which only shape, dtype and device are used.
        radius: (E,), length of the first step.
    """

    def __init__(self, parameters: Tensor, radius: Tensor) -> None:
        self.radius = radius
        self.best = parameters.flatten(1)  # (E, P * hidden_size), the best so far
        self.value = torch.full_like(radius, torch.inf)  # (E,), the loss there
        self.gradient = torch.zeros_like(self.best)
        self.scale = torch.zeros_like(radius)  # (E,), scale of H before any pair
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / s.y (0: unused)

    def best_of(self, tried: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's best point, given the ``loss`` (E,) of ``tried``, and its loss.

        A loss that is NaN is never the best. It may be on another device than ``tried``
        (E, P, hidden_size): in a split model it comes from the head, and the vectors are on the
        edited layer's device.
        """
        loss = loss.to(self.value)
        better = loss < self.value
        best = torch.where(better[:, None], tried.flatten(1), self.best)
        return best.view_as(tried), torch.where(better, loss, self.value)

    def step(self, tried: Tensor, loss: Tensor, gradient: Tensor, limits: Tensor) -> Tensor:
        """Return the point to try next.

        Args:
            tried: (E, P, hidden_size), the last point tried.
            loss: (E,), the loss there.
            gradient: (E, P, hidden_size), its gradient there.
            limits: (E, P), bounds on the length of each vector.
        """
        loss = loss.to(self.value)
        at, slope = tried.flatten(1), gradient.flatten(1).nan_to_num(0.0, 0.0, 0.0)
        if bool(self.value.isinf().any()):
            self.scale = self.radius / slope.norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
        else:
            self._learn(at - self.best, loss, slope)
        self.gradient = torch.where((loss < self.value)[:, None], slope, self.gradient)
        best, self.value = self.best_of(tried, loss)
        self.best = best.flatten(1)
        there = (self.best + self._direction()).view_as(tried)
        return clamped(there, limits)

    def _learn(self, moved: Tensor, loss: Tensor, slope: Tensor) -> None:
        """Store a pair, and set the radius by how much the step lowered the loss."""
        turned = slope - self.gradient
        product = (moved * turned).sum(1)
        curved = product > CURVED * moved.norm(dim=1) * turned.norm(dim=1)
        inverse = torch.where(curved, 1 / product, torch.zeros_like(product))
        self.pairs = [*self.pairs, (moved, turned, inverse)][-PAIRS:]
        squares = turned.square().sum(1)
        self.scale = torch.where(curved, product / squares, self.scale)
        predicted = -(self.gradient * moved).sum(1)
        length = moved.norm(dim=1)
        good = self.value - loss > GOOD * predicted
        grown = torch.where(good, torch.maximum(self.radius, GROWS * length), self.radius)
        self.radius = torch.where(loss < self.value, grown, SHRINKS * length)

    def _direction(self) -> Tensor:
        """Return -H g (E, P * hidden_size) within the radius, by the two-loop recursion."""
        found = self.gradient.clone()
        shares: list[Tensor] = []
        for moved, turned, inverse in reversed(self.pairs):
            share = inverse * (moved * found).sum(1)
            found = found - share[:, None] * turned
            shares.append(share)
        found = found * self.scale[:, None]
        for (moved, turned, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            back = inverse * (turned * found).sum(1)
            found = found + (share - back)[:, None] * moved
        length = found.norm(dim=1).clamp(min=torch.finfo(found.dtype).tiny)
        return -found * (self.radius / length).clamp(max=1.0)[:, None]

    def select(self, kept: Tensor) -> None:
        """Drop the rows where ``kept`` (E,) bool is false."""
        self.radius, self.value, self.scale = self.radius[kept], self.value[kept], self.scale[kept]
        self.best, self.gradient = self.best[kept], self.gradient[kept]
        self.pairs = [(s[kept], y[kept], inverse[kept]) for s, y, inverse in self.pairs]


def clamped(delta: Tensor, limits: Tensor) -> Tensor:
    """Scale vectors of delta (E, P, hidden_size) that exceed their limit back to it."""
    sizes = delta.norm(dim=-1)
    least = torch.finfo(delta.dtype).tiny
    scaled = delta * limits[..., None] / sizes[..., None].clamp(min=least)
    return torch.where((sizes > limits)[..., None], scaled, delta)
