"""Choose the next token of a text, and keep what is asked for about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

COLD = 1e-6
"""A temperature below it counts as 0: logits divided by it are no numbers any more."""


@dataclass(frozen=True)
class TokenScore:
    """A token of a text, and what the model would have written there.

    Attributes:
        token: Its id.
        log_prob: Its natural log-probability before any temperature; None where nothing is before
            it.
        top: The most probable tokens there with theirs, the most probable first.
    """

    token: int
    log_prob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Sampling:
    """How next tokens are chosen.

    Attributes:
        temperature: 0 takes the most probable token; else logits are divided by it.
        top_p: The share of probability, from the most probable token on, that is drawn from.
        seed: Of the generator that draws; None for one that nobody knows.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    _generator: torch.Generator = field(default_factory=torch.Generator, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(self.seed)

    def choose(self, logits: Tensor) -> int:
        """Choose a token.

        Args:
            logits: (vocabulary,) float32.
        """
        if self.temperature < COLD:
            return int(logits.argmax())
        probabilities = (logits.cpu() / self.temperature).softmax(-1)
        ordered, tokens = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # of all more probable ones; 0 for the first
        beyond = before >= self.top_p
        beyond[0] = False  # also where float32 takes top_p for 0
        ordered = ordered.masked_fill(beyond, 0.0)
        return int(tokens[torch.multinomial(ordered, 1, generator=self._generator)])


def scores_of(logits: Tensor, tokens: list[int], most: int) -> list[TokenScore]:
    """Score tokens under the logits that precede them.

    Args:
        logits: (N, vocabulary), of any dtype.
        tokens: N ids.
        most: How many of the most probable tokens are given with each; 0 gives none.

    Returns:
        N scores. A token that is the most probable has exactly the log-probability that its entry
        in `TokenScore.top` has: both are read from one float32 tensor.
    """
    log_probs = logits.float().log_softmax(-1)
    own = log_probs.gather(-1, torch.tensor(tokens, device=log_probs.device)[:, None])[:, 0]
    if not most:
        return [TokenScore(one, value) for one, value in zip(tokens, own.tolist(), strict=True)]
    values, ids = log_probs.topk(min(most, log_probs.shape[-1]), dim=-1)
    tops = [
        tuple(zip(row, scores, strict=True))
        for row, scores in zip(ids.tolist(), values.tolist(), strict=True)
    ]
    rows = zip(tokens, own.tolist(), tops, strict=True)
    return [TokenScore(one, value, top) for one, value, top in rows]
