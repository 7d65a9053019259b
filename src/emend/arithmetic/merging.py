"""The deltas of one tensor become one: linear, TIES and DARE.

    task_arithmetic   sum_i w_i tau_i                                     Ilharco et al. 2023
    ties              trim each tau_i to its largest share by magnitude; elect the sign of
                      sum_i w_i tau_i for each number; average those that agree
                                                         Yadav et al. 2023, arXiv 2306.01708
    dare_linear       keep each number of tau_i with probability `density`, rescale, then the sum
    dare_ties         the same, then elect signs         Yu et al. 2023, arXiv 2311.03099

``linear`` is the sum too: of deltas it is task arithmetic. (mergekit's ``linear`` is the mean of
checkpoints; see `mergekit`.)

Deviations, each with its default from the papers and the other form for mergekit's files: a trimmed
or thinned delta is rescaled by 1 / density (`paper`) or to its L1 norm before (`l1`); the mean
divides by the sum of the weights that agree, where `normalize` is set. A negative weight turns the
sign of its delta and then counts by its absolute value, so that a mean with it is one; mergekit
divides by the sum of the signed weights (`signed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from emend import _identity
from emend._validate import choice_fault, refuse
from emend.errors import InvalidInput

Method = Literal["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
METHODS = get_args(Method)
Rescale = Literal["none", "paper", "l1"]

TRIMMED = 0.2
"""Share of the numbers that TIES keeps, as published."""

THINNED = 0.5
"""Share of the numbers that DARE keeps; the paper goes down to 0.1 and below for large models."""

_SMALL = 1e-7


@dataclass(frozen=True)
class Merging:
    """How the deltas of a tensor are merged.

    Attributes:
        method: One of `METHODS`.
        density: Share of the numbers that are kept, the same for all deltas or one for each; None
            for 0.2 of ties and 0.5 of dare_linear and dare_ties. Not used by the sum.
        seed: Of what DARE keeps.
        scale: Factor of the merged delta (lambda).
        normalize: Whether the sum is divided by the weights; None for ties alone.
        rescale: How a delta is rescaled after numbers were dropped; None for "paper" of dare_linear
            and dare_ties, and "none" of ties.
        signed: Whether a negative weight counts as one when the sum is divided, as in mergekit.
    """

    method: Method = "linear"
    density: float | tuple[float, ...] | None = None
    seed: int = 0
    scale: float = 1.0
    normalize: bool | None = None
    rescale: Rescale | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        refuse("method", choice_fault(self.method, METHODS))
        if self.density is not None and not self.drops:
            raise InvalidInput(
                f"density is given with method {self.method}, which keeps all numbers: leave it "
                "out, or take ties, dare_linear or dare_ties"
            )
        given = self.density if isinstance(self.density, tuple) else (self.density,)
        for density in given:
            if density is not None and not 0 < density <= 1:
                raise InvalidInput(
                    f"density is {density:g}, expected a share above 0 and up to 1, such as 0.2"
                )

    @property
    def drops(self) -> bool:
        """Whether numbers are dropped."""
        return self.method not in ("linear", "task_arithmetic")

    @property
    def is_random(self) -> bool:
        """Whether the dropped numbers are drawn."""
        return self.method.startswith("dare")

    @property
    def elects(self) -> bool:
        """Whether a sign is elected for each number."""
        return self.method.endswith("ties")

    @property
    def normalizes(self) -> bool:
        """Whether the sum is divided by the weights."""
        return self.method == "ties" if self.normalize is None else self.normalize

    @property
    def rescaling(self) -> Rescale:
        """How a delta is rescaled."""
        return self.rescale or ("paper" if self.is_random else "none")

    def density_of(self, number: int) -> float:
        """Return the share that is kept of a delta, by its number."""
        if isinstance(self.density, tuple):
            return self.density[number]
        return self.density or (THINNED if self.is_random else TRIMMED)


def merged(
    deltas: Sequence[Tensor], weights: Sequence[float], settings: Merging, place: Sequence[str]
) -> Tensor:
    """Merge the deltas of one tensor.

    Args:
        deltas: N tensors of one shape, float32 or float64; they may be changed.
        weights: The weight of each.
        settings: The method.
        place: What the random numbers of DARE depend on with the seed: one text for each delta,
            such as the name of its vector and of the tensor, so that they depend on neither the
            order of tensors nor the shards.

    Returns:
        The merged delta.
    """
    if not settings.signed:
        deltas = [-one if w < 0 else one for one, w in zip(deltas, weights, strict=True)]
        weights = [abs(weight) for weight in weights]
    if settings.drops:
        deltas = [
            _dropped(one, settings, number, place[number]) for number, one in enumerate(deltas)
        ]
    factor = torch.tensor(list(weights), dtype=deltas[0].dtype)
    if settings.elects:
        total = _elected(deltas, factor, settings)
    else:
        total = sum((w * one for w, one in zip(weights, deltas, strict=True)), start=deltas[0] * 0)
        whole = float(factor.sum())
        if settings.normalizes and abs(whole) >= 1e-8:
            total = total / whole
    return total * settings.scale if settings.scale != 1 else total


def _dropped(delta: Tensor, settings: Merging, number: int, place: str) -> Tensor:
    density = settings.density_of(number)
    if density >= 1 or not delta.numel():
        return delta
    mask = (
        _drawn(delta, density, settings.seed, place)
        if settings.is_random
        else trimming_mask(delta, density)
    )
    kept = delta * mask
    if settings.rescaling == "paper":
        return kept / density
    if settings.rescaling == "l1":
        before, after = delta.abs().sum(), kept.abs().sum()
        if before >= _SMALL and after >= _SMALL:
            return kept * (before / after)
    return kept


def trimming_mask(delta: Tensor, density: float) -> Tensor:
    """Mark the ``density`` share of numbers that are largest by magnitude, at least one."""
    count = max(1, int(density * delta.numel()))
    largest = delta.abs().flatten().topk(count, sorted=False).indices
    mask = torch.zeros(delta.numel(), dtype=torch.bool)
    mask[largest] = True
    return mask.reshape(delta.shape)


def _drawn(delta: Tensor, density: float, seed: int, place: str) -> Tensor:
    """Draw which numbers are kept, each with probability ``density``."""
    number = int(_identity.digest(["dare", seed, place])[:15], 16)
    generator = torch.Generator().manual_seed(number)
    return torch.rand(delta.shape, generator=generator) < density


def _elected(deltas: Sequence[Tensor], weights: Tensor, settings: Merging) -> Tensor:
    """Add the numbers that agree with the elected sign; 0 is elected as positive."""
    weighted = [weight * one for weight, one in zip(weights, deltas, strict=True)]
    positive = sum(weighted[1:], start=weighted[0]) >= 0
    total, divisor = torch.zeros_like(weighted[0]), torch.zeros_like(weighted[0])
    for weight, one in zip(weights, weighted, strict=True):
        agrees = torch.where(positive, one > 0, one < 0)
        total += one * agrees
        divisor += weight * agrees
    if not settings.normalizes:
        return total
    return total / divisor.where(divisor != 0, torch.ones_like(divisor))
