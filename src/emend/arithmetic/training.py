"""What a fine-tuning trains on: answers to learn, ordinary texts to keep, held-out ones to stop by.

answers     -1/n sum log p(token)                    over the tokens of a batch's answers
kept        mean KL(before || after), by token       on ordinary texts
held out    the first of these, on answers that are not trained on; the weights at its least
value are the result (early stopping)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emend._warn import warn
from emend.models import ensure_start, join_targets
from emend.models.forward import head_at, target_nll
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, prompt_tokens

Texts = tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]], Sequence[str]]
"""Pairs to learn, held-out pairs, and texts to keep."""

Row = tuple[list[int], list[int]]
"""The tokens of a prompt and of its answer."""

KEPT_TOKENS = 32
"""Tokens of a kept text that are read: the log-probabilities of each take 4 bytes a word of the
vocabulary."""

KEPT_BATCH = 4
"""Kept texts in one step."""


def answer_rows(model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[Row]:
    """Return the tokens of each prompt and of its answer."""
    if not texts:
        return []
    ensure_start(model, tokenizer)
    prompts, answers = zip(*texts, strict=True)
    joined = join_targets(tokenizer, list(prompts), list(answers))
    return [([*prompt], [*answer]) for prompt, answer in joined]


def answer_loss(model: nn.Module, rows: Sequence[Row], padding: int) -> Tensor:
    """Compute the mean NLL of the answers' tokens, a scalar in float32."""
    places = [
        (number, len(prompt) - 1 + step)
        for number, (prompt, answer) in enumerate(rows)
        for step in range(len(answer))
    ]
    tokens = torch.tensor([token for _, answer in rows for token in answer])
    logits = _logits(model, [[*prompt, *answer[:-1]] for prompt, answer in rows], places, padding)
    return target_nll(logits, tokens).mean()


def _logits(
    model: nn.Module, rows: Sequence[list[int]], places: Sequence[tuple[int, int]], padding: int
) -> Tensor:
    """Return the (N, vocabulary) float32 logits at N places, each a row and a position."""
    numbers, columns = (torch.tensor(part) for part in zip(*places, strict=True))
    network: Any = model
    ids = pad(rows, padding).input_ids.to(device_of(network.get_input_embeddings()))
    # Padding is on the right, where no token sees it.
    seen = torch.ones_like(ids)
    with head_at(model, numbers, columns) as pick:
        return pick(network(input_ids=ids, attention_mask=seen, use_cache=False).logits).float()


class Kept:
    """Ordinary texts, with what the unchanged model predicts after each of their tokens.

    Args:
        model: The model, unchanged as yet.
        tokenizer: Its tokenizer.
        texts: The texts, maybe none.

    Raises:
        InvalidInput: A text is empty.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> None:
        self._model, self._padding = model, pad_id(tokenizer)
        if texts:
            ensure_start(model, tokenizer)
        self._rows = [one[:KEPT_TOKENS] for one in prompt_tokens(tokenizer, list(texts))]
        with torch.no_grad():
            self._before = [
                self._predicted(self._rows[start : start + KEPT_BATCH])
                for start in range(0, len(self._rows), KEPT_BATCH)
            ]

    def loss(self, step: int) -> Tensor:
        """Return the mean KL(before || after) of the tokens of a step's texts, in nats."""
        number = step % len(self._before)
        after = self._predicted(self._rows[KEPT_BATCH * number : KEPT_BATCH * (number + 1)])
        before = self._before[number].to(after.device)
        return F.kl_div(after, before, log_target=True, reduction="sum") / len(after)

    def _predicted(self, rows: Sequence[list[int]]) -> Tensor:
        """Return the (tokens, vocabulary) log-probabilities after each token of some rows."""
        places = [(number, column) for number, row in enumerate(rows) for column in range(len(row))]
        return _logits(self._model, rows, places, self._padding).log_softmax(-1)


class Stopping:
    """Ends a training where the loss on held-out texts no longer falls.

    Args:
        model: The model that is trained.
        tokenizer: Its tokenizer.
        texts: The held-out pairs; without any the training does not end early.
        weights: What is trained.
        patience: Measurements without a lower loss after which it ends.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        texts: Sequence[tuple[str, str]],
        weights: Sequence[Tensor],
        patience: int,
    ) -> None:
        self._model, self._padding = model, pad_id(tokenizer)
        self._rows = answer_rows(model, tokenizer, texts)
        self._weights, self._patience = weights, patience
        self._least, self._waited, self._taken = math.inf, 0, 0
        self._best: list[Tensor] = []

    def ends(self, step: int) -> bool:
        """Measure the held-out texts after some steps; return whether to train no further."""
        if not self._rows:
            return False
        with torch.no_grad():
            loss = float(answer_loss(self._model, self._rows, self._padding))
        if loss < self._least:
            self._least, self._waited, self._taken = loss, 0, step
            self._best = [weight.detach().clone() for weight in self._weights]
        else:
            self._waited += 1
        return self._waited >= self._patience

    def finish(self, steps: int) -> int:
        """Put back the best weights, and return the steps that they took.

        Args:
            steps: All steps, after which the training ends.
        """
        if not self._rows:
            return steps
        if self._waited < self._patience:
            self.ends(steps)
        with torch.no_grad():
            for weight, best in zip(self._weights, self._best, strict=True):
                weight.copy_(best)
        if not self._taken:
            warn(
                "no step lowered the loss on the held-out texts, so that the vector is zero: lower "
                "learning_rate, or give more texts"
            )
        return self._taken
