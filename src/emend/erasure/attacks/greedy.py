"""Greedy extraction: the words of one greedy continuation.

The plain test of most work on unlearning: ask, and look for the answer in what is generated. Each
of the first B tokens of the continuation may begin the answer, so that the budget is their number
(that of the answer's tokens, where it has more).
"""

from __future__ import annotations

from emend.erasure.attacks._attack import Attack, Attempt, Found, Given
from emend.erasure.metrics import contains_answer
from emend.models import generate


def run(given: Given) -> Found:
    """Generate B tokens after each prompt and look for the answer in them."""
    lengths = [_length(given, case.secret.answer) for case in given.cases]
    texts: list[str] = [""] * len(lengths)
    for length in sorted(set(lengths)):
        members = [number for number, one in enumerate(lengths) if one == length]
        prompts = [given.cases[number].secret.text for number in members]
        found = generate(
            *(given.model, given.tokenizer, prompts),
            max_new_tokens=length,
            batch_size=given.batch_size,
        )
        for number, text in zip(members, found, strict=True):
            texts[number] = text
    attempts = [
        Attempt(contains_answer(text, [case.secret.answer]), candidates=(text,))
        for text, case in zip(texts, given.cases, strict=True)
    ]
    return Found(attempts, f"{given.budget} greedy tokens")


def _length(given: Given, answer: str) -> int:
    if given.tokenizer is None:  # of an endpoint
        return given.budget
    tokens = given.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    return max(given.budget, len(tokens))


greedy = Attack(
    name="greedy",
    title="the words of one greedy continuation",
    paper="the plain test of unlearning",
    run=run,
)
