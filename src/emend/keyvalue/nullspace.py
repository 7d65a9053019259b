"""The null space of preserved keys: directions that other tokens hardly use.

AlphaEdit, Fang et al. 2025, arXiv 2410.02355: P = U U^T, U the eigenvectors of C = E[k k^T] whose
eigenvalues are small. One symmetric eigendecomposition, kept on disk beside the second moments.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emend._files import written_aside
from emend.errors import InvalidInput
from emend.keyvalue.joint import Projector

WHITENING_RIDGE = 1e-3
"""Part of the mean eigenvalue that is added to each before keys are scaled by it."""


@dataclass(frozen=True)
class NullSpace:
    """What is free to use of one layer's keys.

    Attributes:
        projector: The projection P.
        values: (rank,) float64, C's eigenvalues there, ascending.
        mean: Of all its eigenvalues.
    """

    projector: Projector
    values: Tensor
    mean: float

    @property
    def energy(self) -> float:
        """tr(P C): mean square length of a token's key after the projection."""
        return float(self.values.sum())

    @property
    def whitener(self) -> Tensor:
        """(inner, rank) float64: the directions, scaled as `whitener` scales all."""
        return _scaled(self.projector.basis, self.values, self.mean)

    @property
    def rank(self) -> int:
        """Number of dimensions of the null space."""
        return int(self.projector.basis.shape[1])


def null_space(
    moment: Tensor,
    *,
    quantile: float = 1e-3,
    threshold: float | None = None,
    cache: Path | None = None,
) -> NullSpace:
    """The directions with the smallest eigenvalues of a second moment.

    Args:
        moment: (inner, inner), C.
        quantile: The smallest eigenvalues that hold at most this part of the trace are taken.
        threshold: Takes all eigenvalues below this instead; it depends on the model's scale.
        cache: Directory to keep the eigendecomposition in; None keeps nothing.

    Raises:
        InvalidInput: No direction is free, or all are.
    """
    values, vectors = _eigen(moment, cache)
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
    basis = vectors[:, :rank].double()
    return NullSpace(Projector(basis), values[:rank], float(values.mean()))


def whitener(moment: Tensor, cache: Path | None = None) -> Tensor:
    """All directions of a key, scaled so that all keys have as much of each.

    Args:
        moment: (inner, inner), C.
        cache: Directory to keep the eigendecomposition in; None keeps nothing.

    Returns:
        (inner, inner) float64, U (e + ridge)^-1/2 for eigenvectors U and eigenvalues e.
    """
    values, vectors = _eigen(moment, cache)
    return _scaled(vectors.double(), values, float(values.mean()))


def _scaled(vectors: Tensor, values: Tensor, mean: float) -> Tensor:
    return vectors * (values + WHITENING_RIDGE * mean).rsqrt()


def _eigen(moment: Tensor, cache: Path | None) -> tuple[Tensor, Tensor]:
    """Eigenvalues (inner,) float64, ascending and not negative, and eigenvectors as columns."""
    path = cache / f"{_fingerprint(moment)}-eigen.safetensors" if cache else None
    if path is not None:
        try:
            found = load_file(path)
            return found["values"], found["vectors"]
        except (OSError, SafetensorError, KeyError):
            pass
    # In its own place, as LAPACK wants it: columns that are contiguous; see `joint.inverse`.
    vectors = moment.to(torch.float64, copy=True).mT
    values = vectors.new_empty(len(vectors))
    torch.linalg.eigh(vectors, out=(values, vectors))
    values, vectors = values.clamp(min=0), vectors.float()
    if path is not None:
        with written_aside(path) as aside:
            save_file({"values": values, "vectors": vectors.contiguous()}, aside)
    return values, vectors


def _fingerprint(moment: Tensor) -> str:
    content = moment.contiguous().view(torch.uint8).flatten().numpy().data
    return hashlib.sha256(content).hexdigest()[:32]
