"""Batches of edits whose targets are scored, for methods that train on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.editing.rows import Row, context_rows
from emend.edits import Edit
from emend.models import ModelView
from emend.models.forward import target_nll
from emend.models.replay import BlockCapture, capture_blocks, whole


@dataclass(frozen=True)
class AnswerBatch:
    """Some edits, captured at the first trained block, and where their targets are scored.

    Attributes:
        capture: The blocks from the first trained one up, with all tokens: a changed matrix acts
            on every token.
        rows: (N,) int64, row of each scored token.
        columns: (N,) int64, its position.
        tokens: (N,) int64, the token.
        weights: (N,) float32, one over the number of target tokens and of edits.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    tokens: Tensor
    weights: Tensor

    def loss(self, view: ModelView, spared: float = 0.0) -> Tensor:
        """Mean over edits of -1/n sum_t log p(o_t | what stands before), a scalar in float32.

        Args:
            view: The model.
            spared: Of each token's loss only what is above this counts.
        """
        hidden = self.capture.run_blocks()  # (B, T, width)
        scored = hidden[self.rows.to(hidden.device), self.columns.to(hidden.device)]
        logits = view.logits(scored)  # (N, vocabulary)
        return target_nll(logits, self.tokens, self.weights, spared=spared).sum()


def answer_batches(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    layer: int,
    batch_size: int,
    *,
    at_prompt: bool = False,
) -> list[AnswerBatch]:
    """The edits' bare prompts with their targets, at most ``batch_size`` of them in a batch.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: What shall be said.
        layer: The first block that changes; those below are run once.
        batch_size: Edits in a batch.
        at_prompt: Score all target tokens at the prompt's last token (FT-L), p(o_t | x), and not
            each after those before it, p(o_t | x, o_1..o_(t-1)).

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [_batch(view, part, layer, at_prompt) for part in parts]


def _batch(view: ModelView, rows: Sequence[Row], layer: int, at_prompt: bool) -> AnswerBatch:
    places: list[tuple[int, int, int, float]] = []
    texts: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        count = len(row.targets)
        last = len(row.ids) - count  # the prompt's last token
        texts.append(row.ids[: last + 1] if at_prompt else row.ids)
        for step, token in enumerate(row.targets):
            column = last if at_prompt else last + step
            places.append((number, column, token, 1.0 / (count * len(rows))))
    numbers, columns, tokens, weights = zip(*places, strict=True)
    capture = capture_blocks(view, texts, [0] * len(texts), layer, arrangements=(whole,))
    return AnswerBatch(
        capture,
        torch.tensor(numbers),
        torch.tensor(columns),
        torch.tensor(tokens),
        torch.tensor(weights),
    )
