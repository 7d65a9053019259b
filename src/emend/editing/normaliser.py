"""Running mean, variance and covariance of vectors, merged batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-7
"""A number that varies less than this, relative to its fellows, is not divided by."""


class Normaliser(nn.Module):
    """Mean and biased variance of every vector seen (Chan, Golub and LeVeque 1983), in float64.

    Biased, so that a batch of one row has a variance too (zero).

    Args:
        size: Length of the vectors.
        prior: Pseudo-rows that are counted with those seen: of mean zero, and in every direction
            as large as those seen are on average. With 0 the first row is its own mean, and
            normalised it says nothing; with many rows seen the prior does not show.
    """

    def __init__(self, size: int, prior: float = 0.0) -> None:
        super().__init__()
        self.prior = prior
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """Merge (N, size) into the statistics."""
        if not len(vectors):
            return
        rows = vectors.double()
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self.mean
        between = shift.square() * (self.count * len(rows) / total)
        self.squares += (rows - mean).square().sum(0) + between
        self.mean += shift * (len(rows) / total)
        self.count.copy_(total)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (size,), with the prior; infinite where nothing varies."""
        count = self.count.clamp(min=1)
        share = self.count / (count + self.prior)
        level = (self.squares / count + self.mean.square()).mean()  # mean square of all numbers
        mean = share * self.mean
        # The prior's rows merged with those seen, their variance being the level.
        variance = share * self.squares / count + (1 - share) * level
        variance = variance + share * (1 - share) * self.mean.square()
        deviation = variance.sqrt()
        varies = deviation > EPSILON * deviation.mean()
        return mean, torch.where(varies, deviation, torch.inf)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, size) float32 with mean 0 and variance 1 over what was seen."""
        mean, deviation = self.moments()
        return ((vectors.double() - mean) / deviation).float()


class Whitener(Normaliser):
    """The same with the covariance: vectors are given unit covariance, not unit variance only.

    Args:
        size: Length of the vectors.
        prior: As for `Normaliser`, which is used until more than ``size`` + 1 rows were seen.
    """

    def __init__(self, size: int, prior: float = 0.0) -> None:
        super().__init__(size, prior)
        self.products: Tensor
        self.register_buffer("products", torch.zeros(size, size, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """Merge (N, size) into the statistics."""
        if not len(vectors):
            return
        rows = vectors.double()
        apart = rows - rows.mean(0)
        shift = rows.mean(0) - self.mean
        weight = self.count * len(rows) / (self.count + len(rows))
        self.products += apart.T @ apart + weight * torch.outer(shift, shift)
        super().observe(vectors)

    def forward(self, vectors: Tensor, floor: float = 1e-6) -> Tensor:
        """(N, size) float32: (x - mean) Cov^(-1/2).

        Eigenvalues less than ``floor`` of the largest are taken to be that.
        """
        if self.count <= len(self.mean) + 1:
            return super().forward(vectors)
        values, directions = torch.linalg.eigh(self.products / self.count)
        scale = values.clamp(min=floor * float(values[-1])).rsqrt()
        return ((vectors.double() - self.mean) @ (directions * scale) @ directions.T).float()
