"""Write many key-value pairs at once: the ridge regression that MEMIT, EMMET and AlphaEdit share.

Given keys K (m, E), with m the intermediate size, target changes of the output R (hidden_size, E)
and a metric G (m, m) that weighs the directions of a key, all three write

    Delta = R (K^T G K + w I)^-1 K^T G                                      (dual, E x E)

    method      G                       w
    MEMIT       C^-1                    lambda, the weight of other tokens' keys
    EMMET       C^-1                    about 0: equality
    AlphaEdit   P = U U^T               lambda_2; directions outside P are never used

With G = M M^T this is the ordinary ridge regression of R on the whitened keys M^T K, unwhitened by
M. So it can be solved on its smaller side:

    Delta = R (M^T K)^T ((M^T K)(M^T K)^T + w I)^-1 M^T                     (direct, r x r)

Where an edit is written at the keys of several contexts, each key is a pair with the same change,
and R repeats it.

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
"""Part of its mean diagonal that is added to the diagonal of a covariance."""

DISTINCT = 1e-13
"""Keys are equal if their squared distance is a smaller part of their squared length."""


class Metric(Protocol):
    """A factor M (intermediate_size, r) of the metric G = M M^T."""

    def whiten(self, keys: Tensor) -> Tensor:
        """Compute M^T K, (intermediate_size, E) -> (r, E), float64."""
        ...

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """Compute M X, (r, E) -> (intermediate_size, E), float64."""
        ...


@dataclass(frozen=True)
class Inverse:
    """G = C^-1.

    Attributes:
        factor: (intermediate_size, intermediate_size) float64, lower triangular L with C = L L^T;
            see `inverse`.
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
        basis: (intermediate_size, r) float64, orthonormal columns U.
    """

    basis: Tensor

    def whiten(self, keys: Tensor) -> Tensor:
        """See `Metric`."""
        return self.basis.T @ keys.to(self.basis)

    def unwhiten(self, whitened: Tensor) -> Tensor:
        """See `Metric`."""
        return self.basis @ whitened


def inverse(covariance: Tensor, ridge: float = RIDGE) -> Inverse:
    """Compute the metric C^-1 of a key covariance with a ridge.

    Args:
        covariance: (intermediate_size, intermediate_size), C: symmetric and positive semidefinite.
        ridge: Part of the mean diagonal that is added to the diagonal.

    Raises:
        NumericalFailure: C is not positive definite, or not finite.
    """
    matrix = covariance.to(torch.float64, copy=True)
    del covariance  # freed before the factor's peak, unless the caller holds it
    if not bool(
        torch.stack(matrix.aminmax()).isfinite().all()
    ):  # isfinite of the matrix itself takes a copy
        raise NumericalFailure("the key covariance is not finite: collect it again, in float64")
    matrix.diagonal().add_(ridge * matrix.diagonal().mean())
    failed = torch.empty((), dtype=torch.int32, device=matrix.device)
    # In place, since a second matrix would be the peak of an edit's memory: LAPACK expects
    # contiguous columns, and a symmetric matrix is its own transpose.
    lower = matrix.mT
    torch.linalg.cholesky_ex(lower, out=(lower, failed))
    if int(failed):
        raise NumericalFailure(
            f"the key covariance of {len(matrix)}-dimensional keys is singular (ridge {ridge}): "
            f"take more texts, or a ridge such as {RIDGE}"
        )
    return Inverse(lower)


def ridge_write(
    metric: Metric,
    keys: Tensor,
    residuals: Tensor,
    weight: float,
    form: Form | None = None,
    held: Held | None = None,
) -> LowRank | Dense:
    """Compute the change of one matrix that writes all pairs.

    Args:
        metric: G.
        keys: (E, intermediate_size), or (E, C, intermediate_size) where an edit is written at the
            keys of C contexts.
        residuals: (E, hidden_size), R^T: the target change of the output at each key.
        weight: w, at least 0.
        form: The side to solve on; by default the smaller.
        held: Pairs of others that are preserved, each at one key.

    Returns:
        Factors of rank E (and of the held pairs) with orthonormal rows, which lose the least in
        float32; dense where that is at least a side of the matrix. Unless there is only one edit,
        no row belongs to one edit.

    Raises:
        NumericalFailure: The keys are dependent and the weight is 0, or a number is not finite.
    """
    count, inner = len(keys), keys.shape[-1]
    flat = keys.reshape(-1, inner)
    owners = torch.arange(count).repeat_interleave(len(flat) // count)  # (pairs,)
    if held is not None:
        flat, residuals = torch.cat([flat, held.keys]), torch.cat([residuals, held.residuals])
        owners = torch.cat([owners, torch.arange(count, len(residuals))])
    whitened = metric.whiten(flat.T)  # (r, pairs)
    wanted = residuals.to(whitened)  # (E, hidden_size)
    count, (rank, pairs) = len(wanted), whitened.shape
    summed = torch.zeros(rank, count, dtype=whitened.dtype, device=whitened.device)
    owners = owners.to(whitened.device)
    if (form or ("dual" if pairs <= rank else "direct")) == "dual":
        solved = _solve(whitened.T @ whitened, weight, whitened.T)  # (pairs, r)
        solved = summed.index_add(1, owners, solved.T)  # (r, E)
    else:
        solved = _solve(whitened @ whitened.T, weight, summed.index_add(1, owners, whitened))
    directions = metric.unwhiten(solved)  # (intermediate_size, E)
    if count >= min(inner, wanted.shape[1]):
        return Dense((directions @ wanted).T)
    rows, upper = torch.linalg.qr(directions)  # (intermediate_size, E), (E, E)
    return LowRank(rows.T, (upper @ wanted).T)


@dataclass(frozen=True)
class Held:
    """Pairs of other subjects, whose output is to stay what it was; H pairs, float64.

    Attributes:
        keys: (H, intermediate_size).
        residuals: (H, hidden_size): 0, or what takes back the changes of lower layers.
    """

    keys: Tensor
    residuals: Tensor


def _solve(gram: Tensor, weight: float, right: Tensor) -> Tensor:
    """Compute (gram + weight I)^-1 right."""
    gram = gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    # Squared distance of each key from the span of those before; equal keys differ by rounding.
    apart = factor.diagonal().square() > DISTINCT * gram.diagonal()
    if int(failed) or not bool(apart.all()):
        raise NumericalFailure(
            f"the keys of the edits are linearly dependent (weight {weight}): raise the weight, or "
            "remove edits that state the same of the same subject"
        )
    return torch.cholesky_solve(right, factor)


def directions(solved: Tensor) -> Tensor:
    """Compute the unit vectors u = C^-1 k / |C^-1 k| that separate keys from all others.

    Args:
        solved: (E, m) float64, C^-1 k of each key; the key itself where C is unknown.

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
    """Compute the factors of the change of W that maps ``key`` to ``wanted``, along ``direction``.

    W' = W + ((v* - W k) / (u . k)) u^T, so that W' k = v*.

    Args:
        direction: (m,), u.
        key: (m,), k.
        output: (d,), the present W k.
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
            "a key is orthogonal to its own direction, so the change would be unbounded: "
            "use original=False, which takes one key throughout"
        )
    return u, (wanted.double() - output.double()) / overlap


SLACK = 0.03
"""Slack of `respond`, in parts of each key's response to itself."""


def respond(keys: Tensor, solved: Tensor) -> Tensor:
    """Find the direction that responds with 1 to each of some keys and least to all others.

    The minimum over u of sum_j (u . k_j - 1)^2 / s_j + lambda u^T C u, s_j = k_j^T C^-1 k_j, is

        u = C^-1 K (K^T C^-1 K + lambda diag(s))^-1 1

    One key gives ROME's C^-1 k / (k^T C^-1 k). The mean of several contexts' keys may be far from
    each: a subject that begins its text has another key than one after some words.

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
