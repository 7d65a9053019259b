"""Solving with second moments: in float64, by Cholesky factors, nothing inverted."""

from __future__ import annotations

import torch
from torch import Tensor

from emend.errors import NumericalFailure

RIDGE = 1e-4
"""Part of the mean diagonal that is added to the diagonal of a second moment (spec S3)."""


def solve_moment(moment: Tensor, keys: Tensor, ridge: float = RIDGE) -> Tensor:
    """Solve (C + ridge tr(C)/m I) X = K.

    Args:
        moment: (m, m), C: symmetric and positive semidefinite.
        keys: (m, E), K.
        ridge: See `RIDGE`; 0 for none.

    Returns:
        (m, E) float64.

    Raises:
        NumericalFailure: C is not positive definite, or not finite.
    """
    matrix = moment.double()
    matrix = (matrix + matrix.T) / 2
    size = matrix.shape[0]
    matrix = matrix + ridge * matrix.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    if not bool(matrix.isfinite().all()):
        raise NumericalFailure(
            "the second moment of the keys is not finite: collect it again, in float64"
        )
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise NumericalFailure(
            f"the second moment of {size}-dimensional keys is singular (ridge {ridge}): "
            f"take more texts, or a ridge such as {RIDGE}"
        )
    return torch.cholesky_solve(keys.double(), factor)


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


LOOSE = 0.03
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
    slack = LOOSE * torch.diag(gram.diagonal())
    weights = torch.linalg.solve(gram + slack, torch.ones(len(gram), dtype=gram.dtype))
    return weights @ solved.double()
