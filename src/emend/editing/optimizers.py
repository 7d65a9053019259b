"""Adam and L-BFGS for a batch of independent vectors, which can be dropped from the batch.

Adam has the arithmetic of `torch.optim.Adam`. L-BFGS gives each row its own curvature and trust
radius: Liu and Nocedal 1989, "On the limited memory BFGS method for large scale optimization",
doi 10.1007/BF01589116, within a ball instead of along a line:

    d = -H g, cut to the radius         H from the last pairs s = x' - x, y = g' - g
    f(x + d) < f(x): x moves there      and the ball may grow, where the model held
    else:            x stays            and the ball shrinks; the pair is learnt from all the same

One evaluation is one step, as with Adam, and none is spent on a line search.
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


PAIRS = 10
"""Pairs that are remembered."""

SHRINKS, GROWS = 0.4, 2.0
"""The radius after a step that made it worse, and after a good one, in lengths of the step."""

GOOD = 0.25
"""Part of the decrease that the gradient promises, from which on a step is good."""

CURVED = 1e-8
"""Least cosine of s and y."""


class Lbfgs:
    """L-BFGS for a batch of independent vectors that started together.

    Args:
        parameters: (E, P, width), only its shape, dtype and device are used.
        radius: (E,), length of the first step.
    """

    def __init__(self, parameters: Tensor, radius: Tensor) -> None:
        self.radius = radius
        self.held = parameters.flatten(1)  # (E, P * width), the best so far
        self.value = torch.full_like(radius, torch.inf)  # (E,), the loss there
        self.gradient = torch.zeros_like(self.held)
        self.scale = torch.zeros_like(radius)  # (E,), of H where no pair speaks
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / s.y (0: not to be used)

    def hold(self, tried: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Where each row stands once ``tried`` (E, P, width) has this ``loss`` (E,), and its loss.

        A loss that is no number never holds. It may be on another device than ``tried``: in a
        model that is split it comes from the head, and the vectors are where the edited layer is.
        """
        loss = loss.to(self.value)
        better = loss < self.value
        held = torch.where(better[:, None], tried.flatten(1), self.held)
        return held.view_as(tried), torch.where(better, loss, self.value)

    def step(self, tried: Tensor, loss: Tensor, gradient: Tensor, limits: Tensor) -> Tensor:
        """What to try next.

        Args:
            tried: (E, P, width), where the loss was computed.
            loss: (E,).
            gradient: (E, P, width), of the loss there.
            limits: (E, P), bounds on the length of each vector.
        """
        loss = loss.to(self.value)
        at, slope = tried.flatten(1), gradient.flatten(1).nan_to_num(0.0, 0.0, 0.0)
        if bool(self.value.isinf().any()):
            self.scale = self.radius / slope.norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
        else:
            self._learn(at - self.held, loss, slope)
        self.gradient = torch.where((loss < self.value)[:, None], slope, self.gradient)
        held, self.value = self.hold(tried, loss)
        self.held = held.flatten(1)
        there = (self.held + self._direction()).view_as(tried)
        return clamped(there, limits)

    def _learn(self, moved: Tensor, loss: Tensor, slope: Tensor) -> None:
        """Remember a pair, and set the radius by what the step has brought."""
        turned = slope - self.gradient
        product = (moved * turned).sum(1)
        curved = product > CURVED * moved.norm(dim=1) * turned.norm(dim=1)
        inverse = torch.where(curved, 1 / product, torch.zeros_like(product))
        self.pairs = [*self.pairs, (moved, turned, inverse)][-PAIRS:]
        squares = turned.square().sum(1)
        self.scale = torch.where(curved, product / squares, self.scale)
        promised = -(self.gradient * moved).sum(1)
        length = moved.norm(dim=1)
        good = self.value - loss > GOOD * promised
        grown = torch.where(good, torch.maximum(self.radius, GROWS * length), self.radius)
        self.radius = torch.where(loss < self.value, grown, SHRINKS * length)

    def _direction(self) -> Tensor:
        """(E, P * width), -H g within the radius: the two loops over the pairs."""
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
        self.held, self.gradient = self.held[kept], self.gradient[kept]
        self.pairs = [(s[kept], y[kept], inverse[kept]) for s, y, inverse in self.pairs]


def clamped(delta: Tensor, limits: Tensor) -> Tensor:
    """Scale the vectors of delta (E, P, width) that are longer than their limit back to it."""
    sizes = delta.norm(dim=-1)
    least = torch.finfo(delta.dtype).tiny
    scaled = delta * limits[..., None] / sizes[..., None].clamp(min=least)
    return torch.where((sizes > limits)[..., None], scaled, delta)
