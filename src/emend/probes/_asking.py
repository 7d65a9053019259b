"""Ask a model for short greedy continuations, each different prompt once, and read its answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from emend import models
from emend.edits.answers import short_answer
from emend.probes._data import kinds_to_try

NEW_TOKENS = 5
"""Tokens generated for a probe: enough for a name."""

CONFIDENT = 0.2
"""Least geometric mean probability of an answer's first tokens at which a model knows it."""

_TOKENS_READ = 3
_LONG = 120  # characters; chats are scored separately, so that short prompts need no padding

_KIND_PROMPT = "The word {} is the name of a famous"
_NOTHING = "this"
_PRIOR = 0.5
_GAIN = 0.5


@dataclass
class Asker:
    """A model in one state (with or without a patch) and its replies so far.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        batch_size: Prompts in one forward pass.
        replies: The generated texts, by prompt.
    """

    model: nn.Module
    tokenizer: Any
    batch_size: int = 48
    replies: dict[str, models.Continuation] = field(default_factory=dict)

    def ask(self, prompts: Iterable[str], new_tokens: int = NEW_TOKENS) -> None:
        """Generate replies to the prompts that have none yet."""
        wanted = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.replies]
        if not wanted:
            return
        found = models.continuations(
            self.model,
            self.tokenizer,
            wanted,
            max_new_tokens=new_tokens,
            batch_size=self.batch_size,
        )
        self.replies.update(zip(wanted, found, strict=True))

    def expect(self, expected: Mapping[str, str]) -> None:
        """Store the replies that are as expected, found in one forward pass without generation.

        If the model's top1 tokens are the answer's, they are what it would generate. Other prompts
        are left to `ask`; for an endpoint, which returns no top1 tokens, all are.

        Args:
            expected: The expected answer, by prompt.
        """
        if isinstance(self.model, models.Endpoint):
            return
        short = [prompt for prompt in expected if len(prompt) <= _LONG]
        for prompts in (short, [prompt for prompt in expected if len(prompt) > _LONG]):
            # The top1 token in place of the full stop shows where the answer ends.
            answers = [f"{expected[prompt]}." for prompt in prompts]
            found = models.score(
                self.model, self.tokenizer, prompts, answers, batch_size=self.batch_size
            )
            for prompt, score in zip(prompts, found, strict=True):
                if score.greedy[:-1] == score.token_ids[:-1]:
                    text = self.tokenizer.decode(score.greedy, skip_special_tokens=True)
                    self.replies[prompt] = models.Continuation(text)

    def text(self, prompt: str) -> str:
        """Return the text generated after a prompt."""
        return self.replies[prompt].text

    def known(self, prompt: str) -> str | None:
        """Return the same; None if the prompt was not asked."""
        return self.text(prompt) if prompt in self.replies else None

    def answer(self, prompt: str) -> str:
        """Return the short answer in the generated text; "" if there is none."""
        return short_answer(self.replies[prompt].text)

    def confidence(self, prompt: str) -> float:
        """Return the geometric mean probability of the first tokens; 1 if there are none."""
        first = self.replies[prompt].log_probs[:_TOKENS_READ]
        return math.exp(sum(first) / len(first)) if first else 1.0


def kind_by_model(asker: Asker, subject: str) -> tuple[str, ...]:
    """Ask the model for the kind of a subject that is in no list.

    The score of a kind is the log-probability of its word after "The word {} is the name of a
    famous", minus half of that without the subject, so that words that are always probable count
    less.

    Args:
        asker: The unedited model.
        subject: The subject.

    Returns:
        The best kind; none if its word gains less than `_GAIN` nats by the subject, or for an
        endpoint, which returns no probabilities.
    """
    if isinstance(asker.model, models.Endpoint):
        return ()
    kinds = kinds_to_try()
    prompts = [_KIND_PROMPT.format(name) for name in (subject, _NOTHING) for _ in kinds]
    scores = models.score(
        asker.model, asker.tokenizer, prompts, [*kinds, *kinds], batch_size=asker.batch_size
    )
    own = [one.total for one in scores[: len(kinds)]]
    usual = [one.total for one in scores[len(kinds) :]]
    _, gain, kind = max(
        (log_prob - _PRIOR * without, log_prob - without, kind)
        for log_prob, without, kind in zip(own, usual, kinds, strict=True)
    )
    return (kind,) if gain >= _GAIN else ()
