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
    padding = pad_id(given.tokenizer)
    lengths = [asked.length + len(answer) for asked, answer in pairs]
    with torch.no_grad(), evaluating(runner.model):
        for chosen in batches(lengths, given.batch_size):
            laid = Laid.of([pairs[number] for number in chosen])
            states = _read(view, runner, laid, layers, padding)
            yield Positions(
                view, torch.tensor(chosen)[laid.numbers], laid.steps, laid.wanted, states
            )


@dataclass(frozen=True)
class Laid:
    """Rows of tokens, and the N positions in them at which answers' tokens are predicted.

    Attributes:
        rows: A row for each pair: the prompt, and the answer without its last token.
        ends: (B,) int64, the last column of each prompt.
        numbers: (N,) int64, the row of each position.
        columns: (N,) int64, its column.
        steps: (N,) int64, number of the token in the answer, from 0 on.
        wanted: (N,) int64, the token.
        weights: (N,) float32, one over the number of the answer's tokens.
    """

    rows: list[tuple[int, ...]]
    ends: Tensor
    numbers: Tensor
    columns: Tensor
    steps: Tensor
    wanted: Tensor
    weights: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Laid:
        """Lay out pairs whose prompts one model answers alone."""
        rows = [(*asked.prompts[0], *answer[:-1]) for asked, answer in pairs]
        ends = [len(asked.prompts[0]) - 1 for asked, _ in pairs]
        places = [
            (row, end + step, step, token, 1 / len(answer))
            for row, (end, (_, answer)) in enumerate(zip(ends, pairs, strict=True))
            for step, token in enumerate(answer)
        ]
        return cls(rows, torch.tensor(ends), *map(torch.tensor, zip(*places, strict=True)))

    def logits(self, view: ModelView, runner: Runner, padding: int) -> Tensor:
        """Run the rows, as the model's patches have them, and return (N, vocabulary) logits."""
        model: Any = runner.model
        check_length(model, max(map(len, self.rows)))
        batch = pad(self.rows, padding).to(device_of(view.embeddings))
        seen = torch.ones_like(batch.input_ids)  # on the right no token sees the padding
        with (
            runner.acting(),
            reading(model, Batch(self.ends)),
            head_at(model, self.numbers, self.columns) as pick,
        ):
            output = model(input_ids=batch.input_ids, attention_mask=seen, use_cache=False)
            return pick(output.logits)


def _read(
    view: ModelView, runner: Runner, laid: Laid, layers: Sequence[int], padding: int
) -> dict[int, Tensor]:
    """Run rows once and return, by layer, (N, hidden_size): the outputs at their positions."""
    found: dict[int, Tensor] = {}

    def keeping(layer: int) -> Any:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            hidden = hidden_of(output)
            where = laid.numbers.to(hidden.device), laid.columns.to(hidden.device)
            found[layer] = hidden[where].clone()

        return keep

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(hooked(view.layer(layer), keeping(layer)))
        laid.logits(view, runner, padding)
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
