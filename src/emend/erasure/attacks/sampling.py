"""Sampled extraction: B continuations drawn from the model's own probabilities at temperature 1.

Carlini et al. 2021, arXiv 2012.07805, draw many continuations and look for what was memorised. A
continuation is a candidate, and names the secret if it begins with the answer's tokens. A draw
does so with the probability

    P(answer | prompt) = prod_t p(a_t | prompt, a_1..a_(t-1)),

so each of the B draws is decided by one uniform number against it: exactly the distribution of
drawing token by token, at the cost of one scored row for each prompt.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from emend.erasure.attacks._attack import Attack, Attempt, Found, Given
from emend.models import Score, score


def run(given: Given) -> Found:
    """Draw B continuations of each prompt."""
    prompts = [case.secret.text for case in given.cases]
    answers = [case.secret.answer for case in given.cases]
    scores = score(given.model, given.tokenizer, prompts, answers, batch_size=given.batch_size)
    attempts = [
        drawn([one], given.budget, f"{given.seed}-{case.secret.id}-{case.secret.text}")
        for case, one in zip(given.cases, scores, strict=True)
    ]
    return Found(attempts, f"{given.budget} draws at temperature 1")


def drawn(scores: Sequence[Score], budget: int, seed: str) -> Attempt:
    """Draw continuations of several prompts, as many of each as the budget allows.

    Args:
        scores: The answer's score after each prompt, at most as many as the budget.
        budget: Draws in all, at most.
        seed: Seed of the draws.
    """
    generator = random.Random(seed)
    each = budget // len(scores)
    chances = [math.exp(one.total) for one in scores]
    found = [generator.random() < chance for chance in chances for _ in range(each)]
    probability = sum(chances) / len(chances)
    return Attempt(any(found), len(scores[0].token_ids), probability=probability)


sampling = Attack(
    name="sampling",
    title="sampled continuations of the prompt",
    paper="Carlini et al. 2021, arXiv 2012.07805",
    run=run,
)
