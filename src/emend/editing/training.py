"""Training on edits: passes over them in mini-batches, with what is to be held beside.

All edits are seen in every pass, a mini-batch a step, and not one edit after the other until each
is learned, which forgets those before (LocFT-BF, arXiv 2509.22072).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from emend._progress import progress
from emend.editing.answers import AnswerBatch
from emend.editing.held import HeldBatch
from emend.errors import NumericalFailure
from emend.models import ModelView

LEARNED = 1e-2
"""Loss of a mini-batch below which there is nothing left to learn."""


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
    held: Sequence[HeldBatch],
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
