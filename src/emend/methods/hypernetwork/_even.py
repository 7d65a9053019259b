"""The objective "even": make an edit's target and its original equally probable.

BiasEdit, Xu et al. 2025, arXiv 2503.08588. With s the mean log-probability of the tokens of one
continuation of the prompt and a that of the other, P = exp(s) and Q = exp(a),

    L_edit = P (log P - log Q) + Q (log Q - log P) = (exp(s) - exp(a)) (s - a)

which is 0 where the two are equally probable. The network reads the token gradients of this loss
(of both continuations), and the retention term is the KL divergence on the edit's locality texts,
for StereoSet the meaningless sentence.

The published code takes the mean of probabilities in place of exp of the mean log-probability, with
which the loss may be negative; and the retention term there compares one number of each sentence,
here the distributions at all its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from emend.editing.gradients import TokenGradients, target_places
from emend.editing.rows import Row, context_rows
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._training import target_logits, target_rows
from emend.models import ModelView
from emend.models.forward import target_nll

Objective = Literal["target", "even"]
"""What a network learns: to make the target probable, or as probable as the original."""


def rows_to_read(tokenizer: Any, edits: Sequence[Edit], objective: Objective) -> list[Row]:
    """Return the rows whose token gradients the network reads.

    Returns:
        (E) the edits; for "even" (2E), the edits and then the same prompts with their originals.

    Raises:
        InvalidInput: An edit has no original, and the objective is "even".
    """
    if objective == "target":
        return [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    prompts = [edit.text for edit in edits]
    return target_rows(tokenizer, prompts * 2, [*(e.target for e in edits), *originals(edits)])


def originals(edits: Sequence[Edit]) -> list[str]:
    """Return the original of each edit.

    Raises:
        InvalidInput: One has none.
    """
    missing = next((edit for edit in edits if not edit.original), None)
    if missing is not None:
        raise InvalidInput(
            f"edit {missing.id} has no original, expected the answer that its target is to be as "
            "probable as: add it, or train with objective=target"
        )
    return [edit.original or "" for edit in edits]


def mean_log_probs(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Return the mean log-probability of each row's target tokens, (B,).

    Args:
        logits: (M, vocabulary), at the rows' targets in their order.
        rows: B rows.
    """
    places, tokens, weights = target_places(rows)
    nll = target_nll(logits, tokens, weights)  # (M,)
    zeros = torch.zeros(len(rows), dtype=nll.dtype, device=nll.device)
    return -zeros.index_add(0, places[0].to(nll.device), nll)


def symmetric_divergence(log_probs: Tensor) -> Tensor:
    """Return (exp(s) - exp(a)) (s - a) of each edit, (E,).

    Args:
        log_probs: (2E,), of the targets and then of the originals; see `mean_log_probs`.
    """
    first, second = log_probs.chunk(2)
    return (first.exp() - second.exp()) * (first - second)


def evenness(log_probs: Tensor) -> list[float]:
    """Return of each edit the smaller of the two probabilities over the larger, 1 where even."""
    first, second = log_probs.chunk(2)
    return (-(first - second).abs()).exp().tolist()


def even_gradients(
    view: ModelView, rows: Sequence[Row], gradients: Mapping[str, TokenGradients]
) -> dict[str, TokenGradients]:
    """Turn token gradients of the rows' likelihood into those of the symmetric divergence.

    The divergence depends on a row only through its mean log-probability s, so that the gradients
    of its negative are multiplied by -dL/ds.

    Args:
        view: The model, with nothing attached.
        rows: (2E), see `rows_to_read`.
        gradients: Token gradients of each row's mean negative log-likelihood.

    Returns:
        The gradients, with the number of the edit in place of the row's.
    """
    with torch.no_grad():
        log_probs = mean_log_probs(target_logits(view, rows, lambda _: nullcontext()), rows)
    with torch.enable_grad():
        leaf = log_probs.detach().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(symmetric_divergence(leaf).sum(), leaf)
    factors = -slope.cpu()  # (2E,)
    count = len(rows) // 2
    return {
        name: replace(
            one,
            gradients=one.gradients * factors[one.rows][:, None].to(one.gradients),
            rows=one.rows % count,
        )
        for name, one in gradients.items()
    }
