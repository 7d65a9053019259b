"""The change of one weight matrix, as low-rank factors or dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emend._brief import size_text
from emend.errors import InvalidInput, NumericalFailure

CANCELLED = 1e-13
"""Singular values below this, in parts of ||A|| ||B||, are rounding of float64."""


def _checked(tensor: Tensor, what: str) -> Tensor:
    """Return ``tensor`` as a float32 CPU matrix, checked to be finite."""
    if tensor.ndim != 2:
        raise InvalidInput(
            f"{what} has {tensor.ndim} dimensions, expected a matrix of 2: reshape it"
        )
    matrix = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
    if not bool(torch.isfinite(matrix).all()):
        raise NumericalFailure(
            f"{what} holds NaN or infinity, expected finite numbers: the edit diverged, "
            "lower its learning rate"
        )
    return matrix


@dataclass(frozen=True, eq=False, repr=False)
class LowRank:
    """A change of rank at most r: ``delta = B @ A``.

    Attributes:
        A: (r, in) float32.
        B: (out, r) float32.
        columns: The id of the edit that each of the r rows belongs to; None where the edits
            share the rows and cannot be separated.
    """

    A: Tensor
    B: Tensor
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "A", _checked(self.A, "factor A"))
        object.__setattr__(self, "B", _checked(self.B, "factor B"))
        if self.A.shape[0] != self.B.shape[1]:
            raise InvalidInput(
                f"factors A {tuple(self.A.shape)} and B {tuple(self.B.shape)} disagree on the "
                "rank: A must be (r, in) and B (out, r)"
            )
        if self.columns is not None:
            object.__setattr__(self, "columns", tuple(self.columns))
            if len(self.columns) != self.rank:
                raise InvalidInput(
                    f"{len(self.columns)} columns are attributed but the rank is {self.rank}: "
                    "give one edit id per row of A"
                )

    def __repr__(self) -> str:
        out, inner = self.shape
        size = size_text(self.A.nbytes + self.B.nbytes)
        return f"{type(self).__name__}: {out} x {inner}, rank {self.rank}, {size}"

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return int(self.A.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the change, (out, in)."""
        return int(self.B.shape[0]), int(self.A.shape[1])

    def dense(self) -> Tensor:
        """Return the change itself, (out, in) float32."""
        return self.B @ self.A

    def norm(self) -> float:
        """Return the Frobenius norm of the change, from the r x r Gram matrices."""
        a, b = self.A.double(), self.B.double()
        squared = float(((a @ a.T) * (b.T @ b)).sum())
        return max(squared, 0.0) ** 0.5

    def scaled(self, scale: float) -> LowRank:
        """Return ``scale`` times the change."""
        return LowRank(self.A, self.B * scale, self.columns)

    def rows(self, indices: Sequence[int]) -> LowRank:
        """Return the change made of the given rows of A (and columns of B) only."""
        index = torch.tensor(list(indices), dtype=torch.long)
        columns = None if self.columns is None else tuple(self.columns[i] for i in indices)
        return LowRank(self.A[index], self.B[:, index], columns)

    def matrices(self) -> tuple[Tensor, ...]:
        """Return the matrices that the input is multiplied by, in order: A (r, in), B (out, r)."""
        return self.A, self.B


@dataclass(frozen=True, eq=False, repr=False)
class Dense:
    """A change of full rank, as fine-tuning makes it.

    Attributes:
        delta: (out, in) float32.
    """

    delta: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", _checked(self.delta, "dense change"))

    def __repr__(self) -> str:
        out, inner = self.shape
        return f"{type(self).__name__}: {out} x {inner}, {size_text(self.delta.nbytes)}"

    @property
    def columns(self) -> None:
        """Always None: a dense change is shared by all edits."""
        return None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the change, (out, in)."""
        return int(self.delta.shape[0]), int(self.delta.shape[1])

    @property
    def rank(self) -> int:
        """The largest rank that it can have."""
        return min(self.shape)

    def dense(self) -> Tensor:
        """Return the change itself, (out, in) float32."""
        return self.delta

    def norm(self) -> float:
        """Return the Frobenius norm of the change."""
        return float(self.delta.double().norm())

    def scaled(self, scale: float) -> Dense:
        """Return ``scale`` times the change."""
        return Dense(self.delta * scale)

    def matrices(self) -> tuple[Tensor, ...]:
        """Return the matrix that the input is multiplied by: the change, (out, in)."""
        return (self.delta,)


Factor = LowRank | Dense


def add(left: Factor, right: Factor) -> Factor:
    """Add two changes: factors are concatenated, which is exact.

    Raises:
        InvalidInput: The shapes differ.
    """
    if left.shape != right.shape:
        raise InvalidInput(
            f"changes of shape {left.shape} and {right.shape} cannot be added: "
            "both patches must be for the same model"
        )
    if isinstance(left, LowRank) and isinstance(right, LowRank):
        attributed = left.columns is not None and right.columns is not None
        columns = (*left.columns, *right.columns) if attributed else None  # type: ignore[misc]
        return LowRank(torch.cat([left.A, right.A]), torch.cat([left.B, right.B], dim=1), columns)
    return Dense(left.dense() + right.dense())


def compress(
    factor: Factor, tolerance: float = 1e-6, rank: int | None = None
) -> tuple[LowRank, float]:
    """Approximate a change at the smallest rank, by a singular value decomposition in float64.

    Args:
        factor: The change; attribution of rows to edits is lost.
        tolerance: Largest allowed ``||delta - B A||_F / ||delta||_F`` of the truncation; the
            precision of float32 factors (about 1e-7) bounds it from below.
        rank: The largest rank, whatever the error; None for no limit.

    Returns:
        The factors and their measured relative error.
    """
    if isinstance(factor, LowRank):
        # QR of both sides first, so that the decomposition is r x r and not out x in.
        q_b, r_b = torch.linalg.qr(factor.B.double())
        q_a, r_a = torch.linalg.qr(factor.A.double().T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        u, vh = q_b @ u, vh @ q_a.T
        # Rows that cancel out (p - p) leave rounding errors of float64, which are no change.
        s = s.where(s > CANCELLED * r_a.norm() * r_b.norm(), 0.0)
    else:
        u, s, vh = torch.linalg.svd(factor.delta.double(), full_matrices=False)
    tail = s.square().flip(0).cumsum(0).flip(0).sqrt()  # tail[i]: error of keeping i values
    whole = float(tail[0]) if len(tail) else 0.0
    kept = max(int((tail > tolerance * whole).sum()), 1)
    kept = kept if rank is None else min(kept, rank)
    root = s[:kept].sqrt()
    small = LowRank(root[:, None] * vh[:kept], u[:, :kept] * root)
    return small, _relative_error(factor, small)


def low_rank(factor: Factor) -> tuple[LowRank, float]:
    """Factorise a change to be stored, at the smallest rank with a relative error up to 1e-6.

    Returns:
        The factors, and their relative error: 0 for factors that are stored unchanged.
    """
    return (factor, 0.0) if isinstance(factor, LowRank) else compress(factor)


def _relative_error(factor: Factor, small: LowRank) -> float:
    whole = factor.norm()
    if whole == 0.0:
        return 0.0
    if isinstance(factor, Dense):
        difference = factor.delta.double() - small.B.double() @ small.A.double()
        return float(difference.norm()) / whole
    return float(_difference_norm(factor, small)) / whole


def _difference_norm(left: LowRank, right: LowRank) -> float:
    """Return the Frobenius norm of a difference, from the QR factors of its concatenation."""
    r_b = torch.linalg.qr(torch.cat([left.B, -right.B], dim=1).double()).R
    r_a = torch.linalg.qr(torch.cat([left.A, right.A]).double().T).R
    return float((r_b @ r_a.T).norm())
