"""Writing many pairs at once: one ridge regression that MEMIT, EMMET and AlphaEdit share.

Given keys K (inner, E), wanted changes of the output R (width, E) and a metric G (inner, inner)
that says which directions of a key are free to use, all three write

    Delta = R (K^T G K + w I)^-1 K^T G                                      (dual, E x E)

    method      G                       w
    MEMIT       C^-1                    lambda, the weight of what is kept
    EMMET       C^-1                    about 0: equality
    AlphaEdit   P = U U^T               lambda_2; directions outside P are never used

With G = M M^T this is the ordinary ridge regression of R on the whitened keys M^T K, brought back
by M. So it can be solved on its smaller side:

    Delta = R (M^T K)^T ((M^T K)(M^T K)^T + w I)^-1 M^T                     (direct, r x r)

Where an edit is written at the keys of several contexts, each is a pair of its own with the same
change, and R stands for its repetition.

For G = C^-1 and w = lambda that is MEMIT's R K^T (lambda C + K K^T)^-1, its equation 14.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from emend.errors import NumericalFailure
from emend.patches import Dense, LowRank

Form = Literal["dual", "direct"]

RIDGE = 1e-4
"""Part of the mean diagonal that is added to the diagonal of a covariance."""

DISTINCT = 1e-13
"""Keys whose squared distance is a smaller part of their squared length count as equal."""


class Metric(Protocol):
    """A factor M (inner, r) of the metric G = M M^T."""

    def whiten(self, keys: Tensor) -> Tensor:
        """M^T K, (inner, E) -> (r, E), float64."""
        ...

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """M X, (r, E) -> (inner, E), float64."""
        ...


@dataclass(frozen=True)
class Inverse:
    """G = C^-1.

    Attributes:
        factor: (inner, inner) float64, lower triangular L with C = L L^T; see `inverse`.
    """

    factor: Tensor

    def whiten(self, keys: Tensor) -> Tensor:
        """See `Metric`."""
        return torch.linalg.solve_triangular(self.factor, keys.to(self.factor), upper=False)

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """See `Metric`."""
        return torch.linalg.solve_triangular(self.factor.T, whitened, upper=True)


@dataclass(frozen=True)
class Projector:
    """G = U U^T, the projection on a subspace.

    Attributes:
        basis: (inner, r) float64, orthonormal columns U.
    """

    basis: Tensor

    def whiten(self, keys: Tensor) -> Tensor:
        """See `Metric`."""
        return self.basis.T @ keys.to(self.basis)

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """See `Metric`."""
        return self.basis @ whitened


def inverse(moment: Tensor, ridge: float = RIDGE) -> Inverse:
    """The metric C^-1 of a key covariance with a ridge.

    Args:
        moment: (inner, inner), C: symmetric and positive semidefinite.
        ridge: Part of the mean diagonal that is added to the diagonal.

    Raises:
        NumericalFailure: C is not positive definite, or not finite.
    """
    matrix = moment.to(torch.float64, copy=True)
    del moment  # where nobody else holds it, it goes before the factor's peak
    if not bool(torch.stack(matrix.aminmax()).isfinite().all()):  # of a matrix it takes a copy
        raise NumericalFailure(
            "the key covariance of the keys is not finite: collect it again, in float64"
        )
    matrix.diagonal().add_(ridge * matrix.diagonal().mean())
    failed = torch.empty((), dtype=torch.int32, device=matrix.device)
    # In its own place, since a second matrix would be the peak of an edit's memory: LAPACK wants
    # columns that are contiguous, and a symmetric matrix is its transpose.
    lower = matrix.mT
    torch.linalg.cholesky_ex(lower, out=(lower, failed))
    if int(failed):
        raise NumericalFailure(
            f"the key covariance of {len(matrix)}-dimensional keys is singular (ridge {ridge}): "
            f"take more texts, or a ridge such as {RIDGE}"
        )
    return Inverse(lower)


def ridge_write(
    metric: Metric, keys: Tensor, residuals: Tensor, weight: float, form: Form | None = None
) -> LowRank | Dense:
    """The change of one matrix that writes all pairs.

    Args:
        metric: G.
        keys: (E, inner), or (E, C, inner) where what is wanted of an edit is written at the keys
            of C contexts.
        residuals: (E, width), R^T: by how much the output at each key shall change.
        weight: w, at least 0.
        form: Which side to solve on; by default the smaller.

    Returns:
        Factors of rank E with orthonormal rows, so that float32 holds the change as well as its
        size allows; dense where E is at least a side of the matrix. Rows belong to no edit alone,
        unless there is only one.

    Raises:
        NumericalFailure: The keys are dependent and the weight is 0, or a number is not finite.
    """
    count, inner = len(keys), keys.shape[-1]
    whitened = metric.whiten(keys.reshape(-1, inner).T)  # (r, E C)
    wanted = residuals.to(whitened)  # (E, width)
    rank, pairs = whitened.shape
    if (form or ("dual" if pairs <= rank else "direct")) == "dual":
        solved = _solve(whitened.T @ whitened, weight, whitened.T)  # (E C, r)
        solved = solved.reshape(count, -1, rank).sum(1).T  # (r, E)
    else:
        summed = whitened.reshape(rank, count, -1).sum(2)  # (r, E)
        solved = _solve(whitened @ whitened.T, weight, summed)
    directions = metric.unwhiten(solved)  # (inner, E)
    if count >= min(inner, wanted.shape[1]):
        return Dense((directions @ wanted).T)
    rows, upper = torch.linalg.qr(directions)  # (inner, E), (E, E)
    return LowRank(rows.T, (upper @ wanted).T)


def _solve(gram: Tensor, weight: float, right: Tensor) -> Tensor:
    """(gram + weight I)^-1 right."""
    gram = gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    # What is left of a key beside the others, squared; equal keys differ by rounding.
    apart = factor.diagonal().square() > DISTINCT * gram.diagonal()
    if int(failed) or not bool(apart.all()):
        raise NumericalFailure(
            f"the keys of the edits cannot be told apart (weight {weight}): "
            "raise the weight, or remove edits that say the same of the same subject"
        )
    return torch.cholesky_solve(right, factor)


def directions(solved: Tensor) -> Tensor:
    """The unit vectors u = C^-1 k / |C^-1 k| along which keys are told from all others.

    Args:
        solved: (E, m) float64, C^-1 k of each key; the key itself where C is not known.

    Returns:
        (E, m) float64.

    Raises:
        NumericalFailure: A key is zero.
    """
    sizes = solved.norm(dim=1, keepdim=True)
    if not bool((sizes > 0).all()):
        raise NumericalFailure(
            "a key is zero, so nothing can be written at it: choose another layer"
        )
    return solved / sizes


def rank_one(
    direction: Tensor, key: Tensor, output: Tensor, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """The factors of the change of W that sends ``key`` to ``wanted``, along ``direction``.

    W' = W + ((v* - W k) / (u . k)) u^T, so that W' k = v*.

    Args:
        direction: (m,), u.
        key: (m,), k.
        output: (d,), W k as it is.
        wanted: (d,), v*.

    Returns:
        u (m,) and (v* - W k) / (u . k) (d,), float64: the change is their outer product.

    Raises:
        NumericalFailure: u is orthogonal to k, to rounding.
    """
    u, k = direction.double(), key.double()
    overlap = torch.dot(u, k)
    if not bool(overlap.abs() > 1e-12 * k.norm()):
        raise NumericalFailure(
            "a key is orthogonal to its own direction, so the change would be without bound: "
            "use original=False, which takes one key throughout"
        )
    return u, (wanted.double() - output.double()) / overlap


SLACK = 0.03
"""Slack of `respond`, in parts of the response of each key to itself."""


def respond(keys: Tensor, solved: Tensor) -> Tensor:
    """Find the direction that responds with 1 to each of some keys and least to all others.

    The minimum over u of sum_j (u . k_j - 1)^2 / s_j + lambda u^T C u, s_j = k_j^T C^-1 k_j, is

        u = C^-1 K (K^T C^-1 K + lambda diag(s))^-1 1

    One key gives ROME's C^-1 k / (k^T C^-1 k). Of several contexts' keys, their mean may point to
    none of them: a subject that begins its text has another key than one after some words.

    Args:
        keys: (C, m), K^T.
        solved: (C, m) float64, C^-1 K, transposed.

    Returns:
        (m,) float64.
    """
    gram = keys.double() @ solved.double().T  # (C, C)
    slack = SLACK * torch.diag(gram.diagonal())
    weights = torch.linalg.solve(gram + slack, torch.ones(len(gram), dtype=gram.dtype))
    return weights @ solved.double()
