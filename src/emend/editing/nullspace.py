"""The null space of preserved keys: directions that other tokens hardly use.

AlphaEdit, Fang et al. 2025, arXiv 2410.02355: P = U U^T, U the eigenvectors of C = E[k k^T] whose
eigenvalues are small. One symmetric eigendecomposition, which `Prior.spectrum` keeps on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emend.editing.joint import Projector
from emend.errors import InvalidInput

WHITENING_RIDGE = 1e-3
"""Part of the mean eigenvalue that is added to each before keys are scaled by it."""


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of a second moment, C.

    Attributes:
        values: (inner,) float64, ascending and not negative.
        vectors: (inner, inner) float32, as columns.
    """

    values: Tensor
    vectors: Tensor

    @property
    def whitener(self) -> Tensor:
        """(inner, inner) float64, U (e + ridge)^-1/2: keys scaled so have as much of each."""
        return self.scaled(len(self.values))

    def scaled(self, rank: int) -> Tensor:
        """(inner, rank) float64, so the directions of the smallest eigenvalues."""
        sizes = self.values[:rank] + WHITENING_RIDGE * self.values.mean()
        return self.vectors[:, :rank].double() * sizes.rsqrt()


@dataclass(frozen=True)
class NullSpace:
    """What is free to use of one layer's keys.

    Attributes:
        projector: The projection P.
        energy: tr(P C): mean square length of a token's key after the projection.
        rank: Number of dimensions.
    """

    projector: Projector
    energy: float
    rank: int


def spectrum_of(moment: Tensor) -> Spectrum:
    """The eigendecomposition of a second moment (inner, inner), in float64."""
    # In its own place, as LAPACK wants it: columns that are contiguous; see `joint.inverse`.
    vectors = moment.to(torch.float64, copy=True).mT
    values = vectors.new_empty(len(vectors))
    torch.linalg.eigh(vectors, out=(values, vectors))
    return Spectrum(values.clamp(min=0), vectors.float())


def null_space(
    spectrum: Spectrum, *, quantile: float = 1e-3, threshold: float | None = None
) -> NullSpace:
    """The directions with the smallest eigenvalues of a second moment.

    Args:
        spectrum: Of the second moment C.
        quantile: The smallest eigenvalues that hold at most this part of the trace are taken.
        threshold: Takes all eigenvalues below this instead; it depends on the model's scale.

    Raises:
        InvalidInput: No direction is free, or all are.
    """
    values = spectrum.values
    if threshold is None:
        rank = int((values.cumsum(0) <= quantile * values.sum()).sum())
        how = f"quantile {quantile:g} of the trace"
    else:
        rank = int((values < threshold).sum())
        how = f"threshold {threshold:g} (eigenvalues {values[0]:.2g} to {values[-1]:.2g})"
    if rank == 0 or rank == len(values):
        many = "no" if rank == 0 else "every"
        mend = "raise" if rank == 0 else "lower"
        raise InvalidInput(
            f"{many} one of {len(values)} directions of the keys is free at {how}, expected some: "
            f"{mend} the {'quantile' if threshold is None else 'threshold'}"
        )
    basis = spectrum.vectors[:, :rank].double()
    return NullSpace(Projector(basis), float(values[:rank].sum()), rank)
