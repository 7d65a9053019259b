"""States of chosen layers where a secret's tokens are predicted, read through norm and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend.erasure.attacks._attack import Attempt, Case, Given
from emend.errors import UnsupportedModel
from emend.models import ModelView, base
from emend.models.forward import batches, check_length, evaluating, head_at
from emend.models.hooks import hooked
from emend.models.mixture import MixturePrompt, Runner, mixture_pairs
from emend.models.passes import Batch, reading
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id
from emend.models.replay import hidden_of

Pair = tuple[MixturePrompt, tuple[int, ...]]


@dataclass(frozen=True)
class Positions:
    """A batch of positions at which tokens of answers are predicted; N of them.

    Attributes:
        view: The model.
        cases: (N,) int64, number of the case of each position.
        steps: (N,) int64, number of the token in the answer, from 0 on.
        wanted: (N,) int64, the token.
        states: By layer, (N, hidden_size), the output of that block.
    """

    view: ModelView
    cases: Tensor
    steps: Tensor
    wanted: Tensor
    states: dict[int, Tensor]

    def logits(self, layer: int) -> Tensor:
        """Return the logits of the lens, (N, vocabulary) float32: W_U ln_f(h^(layer))."""
        with torch.no_grad():
            return self.view.logits(self.states[layer]).float()


def pairs_of(given: Given, cases: Sequence[Case] | None = None) -> list[Pair]:
    """Tokenise prompts and answers, as the patches attached to the model have them read."""
    cases = given.cases if cases is None else cases
    prompts = [case.secret.text for case in cases]
    return mixture_pairs(
        given.model, given.tokenizer, prompts, [case.secret.answer for case in cases]
    )


def single_runner(pairs: Sequence[Pair]) -> Runner:
    """Return the one model that answers all prompts alone.

    Raises:
        UnsupportedModel: Several models answer together: there is no one stream of states.
    """
    runners = {runner for asked, _ in pairs for runner in asked.runners}
    if len(runners) != 1 or any(len(asked.runners) != 1 for asked, _ in pairs):
        raise UnsupportedModel(
            "several models or prompts answer together, expected one stream of states to read: "
            "take an attack that needs none"
        )
    return next(iter(runners))


def view_of(model: nn.Module) -> ModelView:
    """Return the structure of a model, which does not depend on its patches.

    Raises:
        UnsupportedModel: It has no states to read: an endpoint, or an unknown architecture.
    """
    with base(model):
        return ModelView(model)


def positions(given: Given, layers: Sequence[int]) -> Iterator[Positions]:
    """Read states of all cases at the positions that predict the answer's tokens, in batches.

    A row is the prompt and the answer without its last token, so that each token is predicted with
    those before it given.

    Args:
        given: The model and the cases.
        layers: The layers, counted from 0.

    Yields:
        Positions in no particular order; each of every case comes once.

    Raises:
        UnsupportedModel: The model or its patches have no one stream of states.
    """
    pairs = pairs_of(given)
    runner = single_runner(pairs)
    view = view_of(runner.model)
    rows = [(*asked.prompts[0], *answer[:-1]) for asked, answer in pairs]
    padding = pad_id(given.tokenizer)
    with torch.no_grad(), evaluating(runner.model):
        for chosen in batches([len(row) for row in rows], given.batch_size):
            yield _read(view, runner, [rows[n] for n in chosen], pairs, chosen, layers, padding)


def _read(
    view: ModelView,
    runner: Runner,
    rows: Sequence[tuple[int, ...]],
    pairs: Sequence[Pair],
    chosen: Sequence[int],
    layers: Sequence[int],
    padding: int,
) -> Positions:
    """Read one batch of rows, whose cases have the numbers `chosen`."""
    check_length(runner.model, max(map(len, rows)))
    ends = [len(pairs[case][0].prompts[0]) - 1 for case in chosen]
    places = [
        (row, end + step, case, step, token)
        for row, (case, end) in enumerate(zip(chosen, ends, strict=True))
        for step, token in enumerate(pairs[case][1])
    ]
    numbers, columns, cases, steps, wanted = map(torch.tensor, zip(*places, strict=True))
    states = states_at(view, runner, rows, torch.tensor(ends), (numbers, columns), layers, padding)
    return Positions(view, cases, steps, wanted, states)


def states_at(
    view: ModelView,
    runner: Runner,
    rows: Sequence[Sequence[int]],
    ends: Tensor,
    places: tuple[Tensor, Tensor],
    layers: Sequence[int],
    padding: int,
) -> dict[int, Tensor]:
    """Run rows of tokens once and return the outputs of blocks at some positions.

    Args:
        view: The model.
        runner: The same model in the context that it is run in.
        rows: B rows of token ids.
        ends: (B,) int64, where each row's prompt ends, for patches that act there.
        places: Row and column of the N positions, (N,) int64 each.
        layers: The blocks.
        padding: A token id to pad with.

    Returns:
        By layer, (N, hidden_size) in the model's dtype.
    """
    model: Any = runner.model
    batch = pad(rows, padding).to(device_of(view.embeddings))
    seen = torch.ones_like(batch.input_ids)  # on the right no token sees the padding
    found: dict[int, Tensor] = {}

    def keeping(layer: int) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            hidden = hidden_of(output)
            found[layer] = hidden[places[0].to(hidden.device), places[1].to(hidden.device)].clone()

        return keep

    with ExitStack() as stack:
        stack.enter_context(runner.acting())
        stack.enter_context(reading(model, Batch(ends)))
        for layer in layers:
            stack.enter_context(hooked(view.layer(layer), keeping(layer)))
        stack.enter_context(head_at(model, *places))
        model(input_ids=batch.input_ids, attention_mask=seen, use_cache=False)
    return found


class Tally:
    """Collect candidates of positions into one attempt for each case.

    Args:
        given: The cases, and the tokenizer that writes candidates.
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        self._hits: list[dict[int, bool]] = [{} for _ in given.cases]
        self._named: list[tuple[str, ...]] = [() for _ in given.cases]

    def add(self, at: Positions, candidates: Tensor) -> None:
        """Add the candidates of a batch of positions.

        Args:
            at: The positions.
            candidates: (N, up to B) int64, tokens, on any device; one may occur several times.
        """
        candidates = candidates.cpu()
        hits = (candidates == at.wanted[:, None]).any(1).tolist()
        for row, (case, step) in enumerate(zip(at.cases.tolist(), at.steps.tolist(), strict=True)):
            self._hits[case][step] = hits[row]
            if step == 0:
                named = dict.fromkeys(candidates[row].tolist())
                words = (str(self._given.tokenizer.decode([token])) for token in named)
                self._named[case] = tuple(words)

    def attempts(self) -> list[Attempt]:
        """Return one attempt for each case: found where all its tokens are."""
        return [
            Attempt(all(hits.values()), len(hits), sum(hits.values()), named)
            for hits, named in zip(self._hits, self._named, strict=True)
        ]
