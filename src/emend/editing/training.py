"""Training on edits: passes over them in mini-batches, with what is to be held beside.

All edits are seen in every pass, a mini-batch a step, and not one edit after the other until each
is learned, which forgets those before (LocFT-BF, arXiv 2509.22072).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend._progress import progress
from emend.editing.preservation import PreservedBatch
from emend.editing.rows import Row, context_rows
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.forward import target_nll
from emend.models.replay import BlockCapture, capture_blocks, whole

LEARNED = 1e-2
"""Loss of a mini-batch below which there is nothing left to learn."""


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


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: Passes over all edits, at most.
        learning_rate: Step size of Adam.
        enough: Probability of a target's token from which on it adds no loss; 1 for none.
        stop_below: Loss of a mini-batch below which its edits are learned; the passes end when
            the mean over all is. 0 takes all passes.
        hold: Factor on the divergence of what is held.
    """

    steps: int
    learning_rate: float
    enough: float = 1.0
    stop_below: float = 0.0
    hold: float = 0.0


def train(
    view: ModelView,
    parameters: Sequence[Tensor],
    batches: Sequence[AnswerBatch],
    held: Sequence[PreservedBatch],
    settings: TrainingSettings,
    acting: Callable[[], AbstractContextManager[object]],
    *,
    label: str,
    bound: Callable[[], None] | None = None,
) -> None:
    """Change the parameters, in place, until the targets are said.

    Args:
        view: The model, frozen.
        parameters: What is trained.
        batches: The edits.
        held: What is to be left alone, a batch of it in every step, in turn; may be empty.
        settings: How.
        acting: Makes a context in which the parameters act on the model.
        label: What a progress bar says.
        bound: Called after each step.

    Raises:
        NumericalFailure: A loss is not finite.
    """
    adam = torch.optim.Adam(list(parameters), lr=settings.learning_rate)
    spared = -math.log(settings.enough)
    turn = 0
    for step in progress(range(settings.steps), label):
        losses: list[float] = []
        for batch in batches:
            with acting():
                loss = batch.loss(view, spared)
                losses.append(_finite(loss, step))
                if losses[-1] < settings.stop_below:
                    continue
                if held:
                    part = held[turn % len(held)]
                    loss = loss + settings.hold * part.divergence(view)
                    turn += 1
            adam.zero_grad()
            loss.backward()
            adam.step()
            if bound is not None:
                bound()
        if sum(losses) / len(losses) < settings.stop_below:
            break


def _finite(loss: Tensor, step: int) -> float:
    found = float(loss.detach())
    if not math.isfinite(found):
        raise NumericalFailure(
            f"the loss is {found} at step {step}, expected a finite number: lower "
            "learning_rate, or load the model in float32"
        )
    return found
