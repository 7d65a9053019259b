"""Train on edits in mini-batches, while other statements are preserved.

Every pass goes over all edits, one mini-batch per step. Training one edit after the other until
each is learned forgets the earlier ones (LocFT-BF, arXiv 2509.22072).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from emend._progress import progress
from emend.editing.aims import Aim, Scored, TargetLikelihood, check_aim, lens_logits
from emend.editing.preservation import PreservedBatch
from emend.editing.rows import Row, context_rows, rephrase_rows
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.replay import BlockCapture, capture_blocks, whole

LEARNED = 1e-2
"""Loss of a mini-batch below which its edits are learned."""


class TrainingBatch(Protocol):
    """What one step of `train` is taken on."""

    def loss(self, view: ModelView, aim: Aim) -> Tensor:
        """Compute the loss, a scalar in float32, with what is trained acting on the model."""
        ...


@dataclass(frozen=True)
class AnswerBatch:
    """Edits captured at the first trained layer, and where their targets are scored.

    Attributes:
        capture: The layers from the first trained one up, with all tokens: a changed matrix acts on
            every token.
        rows: (N,) int64, row of each scored token.
        columns: (N,) int64, its column.
        tokens: (N,) int64, the token.
        steps: (N,) int64, its number in the target.
        weights: (N,) float32, one over the number of target tokens and of edits.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    tokens: Tensor
    steps: Tensor
    weights: Tensor

    def loss(self, view: ModelView, aim: Aim) -> Tensor:
        """Compute the mean of the aim's loss over the edits' targets, a scalar in float32.

        Args:
            view: The model.
            aim: What is trained for.

        Raises:
            InvalidInput: The aim reads a layer below the first trained one.
        """
        layers = check_aim(aim, view, self.capture.layer)
        seen: dict[int, Tensor] = {}

        def keep(layer: int, hidden: Tensor) -> None:
            if layer in layers:
                seen[layer] = self._scored(hidden)

        hidden = self.capture.run_blocks(watch=keep)  # (B, T, hidden_size)
        logits = view.logits(self._scored(hidden))  # (N, vocabulary)
        tokens, steps = self.tokens.to(logits.device), self.steps.to(logits.device)
        lens = lens_logits(view, layers, [seen[layer] for layer in layers], logits)
        loss = aim.loss(Scored(logits, lens, tokens, steps))
        return (loss * self.weights.to(loss)).sum()

    def _scored(self, hidden: Tensor) -> Tensor:
        """Pick (N, hidden_size) at the scored positions."""
        return hidden[self.rows.to(hidden.device), self.columns.to(hidden.device)]


def answer_batches(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    layer: int,
    batch_size: int,
    *,
    at_prompt: bool = False,
    rephrasings: int = 0,
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
        rephrasings: Most rephrase probes of each edit that are rows too; see `Aim`.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    rows += [row for each in rephrase_rows(tokenizer, edits, rephrasings) for row in each]
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [_batch(view, part, layer, at_prompt) for part in parts]


def _batch(view: ModelView, rows: Sequence[Row], layer: int, at_prompt: bool) -> AnswerBatch:
    places: list[tuple[int, int, int, int, float]] = []
    texts: list[tuple[int, ...]] = []
    for number, row in enumerate(rows):
        count = len(row.targets)
        last = len(row.ids) - count  # the prompt's last token
        texts.append(row.ids[: last + 1] if at_prompt else row.ids)
        for step, token in enumerate(row.targets):
            column = last if at_prompt else last + step
            places.append((number, column, token, step, 1.0 / (count * len(rows))))
    numbers, columns, tokens, steps, weights = zip(*places, strict=True)
    capture = capture_blocks(view, texts, [0] * len(texts), layer, arrangements=(whole,))
    return AnswerBatch(
        capture,
        torch.tensor(numbers),
        torch.tensor(columns),
        torch.tensor(tokens),
        torch.tensor(steps),
        torch.tensor(weights),
    )


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of `train`.

    Attributes:
        steps: Most passes over all edits.
        learning_rate: Step size of Adam.
        aim: What is trained for; by default the target's likelihood.
        stop_below: Loss of a mini-batch below which it takes no step; training ends when the mean
            over all is below it. 0 takes all passes, and so does an aim that does not stop.
        hold: Factor on the divergence of what is preserved.
    """

    steps: int
    learning_rate: float
    aim: Aim = field(default_factory=TargetLikelihood)
    stop_below: float = 0.0
    hold: float = 0.0


def train(
    view: ModelView,
    parameters: Sequence[Tensor],
    batches: Sequence[TrainingBatch],
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
    learned = settings.stop_below if settings.aim.stops else -math.inf
    turn = 0
    for step in progress(range(settings.steps), label):
        losses: list[float] = []
        for batch in batches:
            with acting():
                loss = batch.loss(view, settings.aim)
                losses.append(_finite(loss, step))
                if losses[-1] < learned:
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
        if sum(losses) / len(losses) < learned:
            break


def _finite(loss: Tensor, step: int) -> float:
    found = float(loss.detach())
    if not math.isfinite(found):
        raise NumericalFailure(
            f"the loss is {found} at step {step}, expected a finite number: lower "
            "learning_rate, or load the model in float32"
        )
    return found
