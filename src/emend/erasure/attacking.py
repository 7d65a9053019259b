"""`attack`: run attacks on a model as it is, with whatever patch is attached."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from emend import models
from emend._progress import progress
from emend.edits import normalised, states_answer
from emend.erasure.attack_report import AttackReport, Outcome
from emend.erasure.attacks import Attack, Attempt, Case, Given, registry
from emend.erasure.attacks._attack import Found
from emend.erasure.secret import Secret, check_secrets
from emend.errors import InvalidInput, UnsupportedModel

ALL = "all"
BUDGET = 20
ROOM = 4
"""Greedy tokens beyond the longest answer's own, in which a model must state it to know it."""


def attack(
    model: nn.Module,
    tokenizer: Any,
    secrets: Iterable[Secret],
    attacks: str | Iterable[str] = ALL,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    layers: Sequence[int] | None = None,
    base: nn.Module | None = None,
    known: Sequence[bool] | None = None,
    control: bool = True,
    batch_size: int = 32,
) -> AttackReport:
    """Attack secrets, and count those whose answer is among the candidates of an attack.

    The model is attacked as it is, with any patch that is attached to it, and left as it is. A
    secret that the model did not know before the erasure is counted apart: there was nothing to
    erase, whatever an attack finds.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        secrets: What should not be found.
        attacks: Names of attacks, "all", or one name; `emend.erasure.attacks.registry()` has them.
        budget: B, the number of candidates that an attack may name for a secret (for each token of
            an answer of several, where an attack names tokens).
        seed: Seed of draws, and of the halves of relearning.
        layers: Layers whose states are read; None takes each attack's own.
        base: The model before the erasure, of which is asked what it knew; None takes the model
            without its patches.
        known: The same, where the caller knows it already: one truth value for each secret.
        control: Also ask each attack for the answer with another subject in the prompt: how often
            it is found shows what can be guessed without the secret.
        batch_size: Rows in one forward pass.

    Returns:
        Results of each secret and rates with intervals. An attack that cannot be run on this model
        or patch has the reason in place of results.

    Raises:
        InvalidInput: No secrets, two with one id, no attacks, a budget below 1, or values of
            `known` of another number.
        UnknownName: There is no such attack.
    """
    chosen, found = _attacks(attacks), check_secrets(secrets)
    _check_budget(budget)
    if known is not None and len(known) != len(found):
        raise InvalidInput(f"known has {len(known)} values for {len(found)} secrets: give one each")
    knew = tuple(known) if known is not None else known_by(base or model, tokenizer, found)
    others = _controls(found) if control else [None] * len(found)
    cases = [Case(secret) for secret in found]
    cases += [Case(one, is_control=True) for one in others if one is not None]
    given = Given(
        *(model, tokenizer, cases, budget, seed),
        layers=None if layers is None else tuple(layers),
        batch_size=batch_size,
    )
    outcomes = [
        _outcome(one, given, others) for one in progress(chosen, "attacks", total=len(chosen))
    ]
    settings = {"budget": budget, "seed": seed, "layers": None if layers is None else list(layers)}
    return AttackReport(found, knew, tuple(outcomes), settings)


def known_by(model: nn.Module, tokenizer: Any, secrets: Sequence[Secret]) -> tuple[bool, ...]:
    """Return for each secret whether the model, without its patches, generates the answer.

    Args:
        model: The model; patches attached to it do not act.
        tokenizer: Its tokenizer.
        secrets: The secrets.
    """
    prompts, answers = [one.text for one in secrets], [one.answer for one in secrets]
    words = answers if tokenizer is None else tokenizer(answers)["input_ids"]  # of an endpoint
    new_tokens = ROOM + max(map(len, words))
    with models.base(model):
        texts = models.generate(model, tokenizer, prompts, max_new_tokens=new_tokens)
    return tuple(
        states_answer(text, [one.answer]) for text, one in zip(texts, secrets, strict=True)
    )


def _attacks(given: str | Iterable[str]) -> list[Attack]:
    """Return the attacks by their names, each once."""
    known = registry()
    if isinstance(given, str):
        given = known.names() if given == ALL else [given]
    names = list(dict.fromkeys(given))
    if not names:
        raise InvalidInput(f"no attacks, expected some of {', '.join(known.names())}, or 'all'")
    return [known.get(name) for name in names]


def _check_budget(budget: int) -> None:
    if budget < 1:
        raise InvalidInput(
            f"budget is {budget}, expected at least 1: the number of candidates that an attack may "
            "name for a secret (published: 20)"
        )


def _controls(secrets: Sequence[Secret]) -> list[Secret | None]:
    """Return each secret with a subject that it does not hold for; None where there is none.

    The subject is that of another secret with another answer: of one with the same prompt, if
    there is one, else of the next.
    """
    found: list[Secret | None] = []
    for number, secret in enumerate(secrets):
        following = [*secrets[number + 1 :], *secrets[:number]]
        other = [
            one
            for one in following
            if normalised(one.answer) != normalised(secret.answer)
            and normalised(one.subject) != normalised(secret.subject)
        ]
        same = [one for one in other if one.prompt == secret.prompt]
        chosen = next(iter([*same, *other]), None)
        found.append(None if chosen is None else _about(secret, chosen.subject))
    return found


def _about(secret: Secret, subject: str) -> Secret:
    """Return a secret with another subject in its prompt and paraphrases."""
    texts = (text.replace(secret.subject, subject) for text in secret.paraphrases)
    changed = (new for new, old in zip(texts, secret.paraphrases, strict=True) if new != old)
    return replace(secret, subject=subject, paraphrases=tuple(changed), neighbours=())


def _outcome(one: Attack, given: Given, others: Sequence[Secret | None]) -> Outcome:
    """Run one attack; where it cannot be run, record why."""
    count = len(others)
    if given.budget < one.least_budget:
        return Outcome(one.name, one.title, refusal=f"needs a budget of {one.least_budget}")
    if count < one.least_secrets:
        return Outcome(one.name, one.title, refusal=f"needs {one.least_secrets} secrets")
    since = time.perf_counter()
    try:
        found: Found = one.run(given)
    except UnsupportedModel as error:
        return Outcome(one.name, one.title, refusal=str(error))
    seconds = time.perf_counter() - since
    rest = iter(found.attempts[count:])
    controls: list[Attempt | None] = [None if other is None else next(rest) for other in others]
    return Outcome(
        *(one.name, one.title, found.how, tuple(found.attempts[:count]), tuple(controls)),
        seconds=seconds,
    )
