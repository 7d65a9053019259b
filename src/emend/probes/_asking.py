"""Asking a model short greedy continuations, each different prompt once, and reading answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from emend import models
from emend.edits.answers import short_answer

NEW_TOKENS = 5
"""Tokens that are generated for a probe: enough for a name."""

CONFIDENT = 0.2
"""Mean probability (geometric) of an answer's first tokens from which on a model knows it."""

_TOKENS_READ = 3
_LONG = 120  # characters; a chat is checked apart from the short prompts, which would be padded


@dataclass
class Asker:
    """A model in one state, with what it has generated so far.

    Attributes:
        model: The model, in the state in which it is asked.
        tokenizer: Its tokenizer.
        batch_size: Prompts in one forward pass.
        replies: What was generated, by prompt.
    """

    model: nn.Module
    tokenizer: Any
    batch_size: int = 48
    replies: dict[str, models.Continuation] = field(default_factory=dict)

    def ask(self, prompts: Iterable[str], new_tokens: int = NEW_TOKENS) -> None:
        """Have the prompts continued that were not continued yet."""
        wanted = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.replies]
        if wanted:
            self.replies.update(zip(wanted, self.continued(wanted, new_tokens), strict=True))

    def continued(self, prompts: list[str], new_tokens: int) -> list[models.Continuation]:
        """Continue prompts without keeping the replies."""
        return models.continuations(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=new_tokens,
            batch_size=self.batch_size,
        )

    def expect(self, expected: Mapping[str, str]) -> None:
        """Reply to the prompts whose answer is the expected one, found in one pass over texts.

        As long as the model's choices are the answer's tokens they are what it generates. Other
        prompts are left to `ask`; an endpoint, which gives no choices, leaves all.

        Args:
            expected: The answer that is expected, by prompt.
        """
        if isinstance(self.model, models.Endpoint):
            return
        short = [prompt for prompt in expected if len(prompt) <= _LONG]
        for prompts in (short, [prompt for prompt in expected if len(prompt) > _LONG]):
            # The choice at the full stop's place shows where the answer ends.
            answers = [f"{expected[prompt]}." for prompt in prompts]
            found = models.score(
                self.model, self.tokenizer, prompts, answers, batch_size=self.batch_size
            )
            for prompt, score in zip(prompts, found, strict=True):
                if score.greedy[:-1] == score.token_ids[:-1]:
                    text = self.tokenizer.decode(score.greedy, skip_special_tokens=True)
                    self.replies[prompt] = models.Continuation(text)

    def text(self, prompt: str) -> str:
        """Return what was generated after a prompt."""
        return self.replies[prompt].text

    def known(self, prompt: str) -> str | None:
        """Return the same, None where the prompt was not asked."""
        return self.text(prompt) if prompt in self.replies else None

    def answer(self, prompt: str) -> str:
        """Return the short answer in what was generated; "" where there is none."""
        return short_answer(self.replies[prompt].text)

    def confidence(self, prompt: str) -> float:
        """Return the mean probability of the answer's first tokens, from 0 to 1."""
        return confidence(self.replies[prompt])


def confidence(reply: models.Continuation) -> float:
    """Return the geometric mean of the first tokens' probabilities; 1 where there are none."""
    first = reply.log_probs[:_TOKENS_READ]
    return math.exp(sum(first) / len(first)) if first else 1.0
