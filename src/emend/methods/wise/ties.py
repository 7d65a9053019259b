"""TIES: one change of a matrix out of several (Yadav et al. 2023, arXiv 2306.01708)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def trimmed(delta: Tensor, kept: float) -> Tensor:
    """A change with only its largest entries left, ``kept`` of all, exactly by rank."""
    count = max(round(kept * delta.numel()), 1)
    order = delta.abs().reshape(-1).argsort(descending=True, stable=True)
    found = torch.zeros_like(delta).reshape(-1)
    found[order[:count]] = delta.reshape(-1)[order[:count]]
    return found.reshape(delta.shape)


def merged(deltas: Sequence[Tensor], kept: float) -> Tensor:
    """Trim each change, elect a sign for each entry, and average those that have it.

    Args:
        deltas: Changes of one shape.
        kept: Part of each that trimming leaves.
    """
    stack = torch.stack([trimmed(delta, kept) for delta in deltas])
    sign = torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    agreeing = (stack.sign() == sign) & (stack != 0)
    return (stack * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
