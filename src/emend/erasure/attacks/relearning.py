"""Relearning: fine-tune on some of the secrets for a few steps, and ask for the others.

Deeb and Roger 2024, "Do Unlearning Methods Remove Information from Language Model Weights?", arXiv
2410.08827: retraining on T. The erased facts are divided into T, which the attacker has, and V;
the model is fine-tuned on T and asked for V, whose answers cannot be guessed from T. Hu et al.
2024, arXiv 2406.13356, do the same with related public texts. What comes back was hidden, not
erased.

Here: two halves by turns, so that each secret is held out once; the loss is the mean NLL of the
answer's tokens after the plain prompt; Adam on changes of all MLP down-projections (published: all
weights), `STEPS` steps on all of T, none of which touches the model itself. The candidates are the
B most probable tokens of the last layer, by positions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor

from emend._progress import progress
from emend.erasure.attacks._attack import Attack, Attempt, Case, Found, Given
from emend.erasure.attacks._states import (
    Laid,
    Pair,
    Tally,
    pairs_of,
    positions,
    single_runner,
    view_of,
)
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.forward import batches, evaluating, target_nll
from emend.models.hooks import changing, frozen
from emend.models.mixture import Runner
from emend.models.positions import pad_id

STEPS, LEARNING_RATE = 10, 1e-3

Acting = Callable[[], AbstractContextManager[None]]


def run(given: Given) -> Found:
    """Fine-tune on each half of the secrets, and ask for the other half."""
    ids = sorted({case.secret.id for case in given.cases})
    random.Random(f"{given.seed}-relearning").shuffle(ids)
    first = set(ids[: len(ids) // 2])
    found: dict[int, Attempt] = {}
    for is_first in (True, False):
        trained = [c for c in given.cases if (c.secret.id in first) == is_first]
        asked = [n for n, c in enumerate(given.cases) if (c.secret.id in first) != is_first]
        acting = relearned(given, [case for case in trained if not case.is_control])
        attempts = top_tokens(given, [given.cases[n] for n in asked], acting)
        found.update(zip(asked, attempts, strict=True))
    how = f"{STEPS} steps on the other half of the secrets, top {given.budget} of the last layer"
    return Found([found[number] for number in range(len(given.cases))], how)


def relearned(given: Given, cases: Sequence[Case]) -> Acting:
    """Train on cases, and return what lets the model compute with what was learned.

    Raises:
        NumericalFailure: The loss is not finite.
    """
    view = view_of(given.model)
    pairs = pairs_of(given, cases)
    runner = single_runner(pairs)
    modules = [view.down_projection(layer) for layer in view.editable]
    deltas = [
        torch.zeros(view.hidden_size, view.intermediate_size(layer), device=view.device(layer))
        for layer in view.editable
    ]
    for delta in deltas:
        delta.requires_grad_(True)

    @contextmanager
    def acting() -> Generator[None, None, None]:
        with ExitStack() as stack:
            for module, delta in zip(modules, deltas, strict=True):
                stack.enter_context(changing(module, delta))
            yield

    optimiser = torch.optim.Adam(deltas, lr=LEARNING_RATE)
    with evaluating(given.model), frozen(given.model), torch.enable_grad():
        for _ in progress(range(STEPS), "relearning"):
            optimiser.zero_grad()
            for members in batches([asked.length for asked, _ in pairs], given.batch_size):
                chunk = [pairs[number] for number in members]
                with acting():
                    loss = _loss(view, runner, chunk, pad_id(given.tokenizer)) / len(pairs)
                loss.backward()  # pyright: ignore[reportUnknownMemberType]
                if not bool(loss.isfinite()):
                    raise NumericalFailure("the loss of relearning is not finite: use float32")
            optimiser.step()
    for delta in deltas:
        delta.requires_grad_(False)
    return acting


def _loss(view: ModelView, runner: Runner, pairs: Sequence[Pair], padding: int) -> Tensor:
    """Return the sum over pairs of the mean NLL of the answer's tokens, a scalar in float32."""
    laid = Laid.of(pairs)
    logits = laid.logits(view, runner, padding).float()  # (N, vocabulary)
    return target_nll(logits, laid.wanted, laid.weights).sum()


def top_tokens(given: Given, cases: Sequence[Case], acting: Acting = nullcontext) -> list[Attempt]:
    """Name the B most probable tokens of the last layer at each position of some cases.

    Args:
        given: The model, and the budget.
        cases: The cases to ask for.
        acting: A context that the model is run in.
    """
    part = Given(given.model, given.tokenizer, cases, given.budget, given.seed)
    last = view_of(given.model).num_layers - 1
    tally = Tally(part)
    with acting():
        for at in positions(part, [last]):
            tally.add(at, at.logits(last).topk(min(given.budget, at.view.vocabulary)).indices)
    return tally.attempts()


relearning = Attack(
    name="relearning",
    title="fine-tune on half of the secrets for a few steps, ask for the other half",
    paper="Deeb and Roger 2024, arXiv 2410.08827; Hu et al. 2024, arXiv 2406.13356",
    run=run,
    needs_states=True,
    least_secrets=2,
)
