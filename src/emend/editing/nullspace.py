"""The null space of preserved keys: directions that other tokens hardly use.

AlphaEdit, Fang et al. 2025, arXiv 2410.02355: P = U U^T, U the eigenvectors of C = E[k k^T] whose
eigenvalues are small. One symmetric eigendecomposition, which `Prior.spectrum` keeps on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emend.editing.ridge import Projector
from emend.errors import InvalidInput


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of a second moment, C.

    Attributes:
        values: (inner,) float64, ascending and not negative.
        vectors: (inner, inner) float32, as columns.
    """

    values: Tensor
    vectors: Tensor


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


def null_space(spectrum: Spectrum, *, quantile: float) -> NullSpace:
    """Return the directions with the smallest eigenvalues of a covariance.

    Args:
        spectrum: Of the covariance C.
        quantile: The smallest eigenvalues that hold at most this part of the trace are taken.

    Raises:
        InvalidInput: No direction is free, or all are.
    """
    values = spectrum.values
    rank = int((values.cumsum(0) <= quantile * values.sum()).sum())
    if rank == 0 or rank == len(values):
        many, remedy = ("no", "raise") if rank == 0 else ("every", "lower")
        raise InvalidInput(
            f"{many} one of {len(values)} directions of the keys is free at quantile {quantile:g} "
            f"of the trace, expected some: {remedy} the quantile"
        )
    basis = spectrum.vectors[:, :rank].double()
    return NullSpace(Projector(basis), float(values[:rank].sum()), rank)
