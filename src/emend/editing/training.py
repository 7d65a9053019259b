"""Train on edits in mini-batches, while other statements are preserved.

Every pass goes over all edits, one mini-batch per step. Training one edit after the other until
each is learned forgets the earlier ones (LocFT-BF, arXiv 2509.22072).
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
"""Loss of a mini-batch below which its edits are learned."""


@dataclass(frozen=True)
class AnswerBatch:
    """Edits captured at the first trained layer, and where their targets are scored.

    Attributes:
        capture: The layers from the first trained one up, with all tokens: a changed matrix acts on
            every token.
        rows: (N,) int64, row of each scored token.
        columns: (N,) int64, its column.
        tokens: (N,) int64, the token.
        weights: (N,) float32, one over the number of target tokens and of edits.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    tokens: Tensor
    weights: Tensor

    def loss(self, view: ModelView, spared: float = 0.0) -> Tensor:
        """Compute the mean over edits of -1/n sum_t log p(o_t | o_<t), a scalar in float32.

        Args:
            view: The model.
            spared: Only the part of each token's loss above this counts.
        """
        hidden = self.capture.run_blocks()  # (B, T, hidden_size)
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
    """Capture the edits' bare prompts with their targets, in batches.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: The edits.
        layer: The first layer that changes; those below are run once.
        batch_size: Most edits in a batch.
        at_prompt: Score all target tokens at the prompt's last token (FT-L), p(o_t | x), instead
            of each after those before it, p(o_t | x, o_1..o_(t-1)).

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
    """Settings of `train`.

    Attributes:
        steps: Most passes over all edits.
        learning_rate: Step size of Adam.
        enough: Probability from which on a target token adds no loss; 1 for none.
        stop_below: Loss of a mini-batch below which it takes no step; training ends when the mean
            over all is below it. 0 takes all passes.
        hold: Factor on the divergence of what is preserved.
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
    preserved: Sequence[PreservedBatch],
    settings: TrainingSettings,
    acting: Callable[[], AbstractContextManager[object]],
    *,
    label: str,
    bound: Callable[[], None] | None = None,
) -> None:
    """Train the parameters, in place, until the model generates the targets.

    Args:
        view: The model, frozen.
        parameters: The trained parameters.
        batches: The edits.
        preserved: What is preserved, one batch per step, in turn; may be empty.
        settings: The settings.
        acting: Makes a context in which the parameters act on the model.
        label: Label of the progress bar.
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
                if preserved:
                    part = preserved[turn % len(preserved)]
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
