"""Defences: what the edit of an erasure writes, or takes away, for each secret.

Patil, Hase and Bansal 2024, "Can Sensitive Information Be Deleted From LLMs?", arXiv 2309.17410,
section 5. Each is an edit of the secret's statement with a target and a loss:

    error_injection    raise P(false answer); the plain edit, to which others are compared
    empty_response     raise P("I don't know")
    fact_erasure       lower P(answer)
    head_projection    move the answer out of the top and the bottom k at every protected layer
    max_entropy        flatten the distributions of the protected layers
    input_rephrasing   error injection, at the secret's paraphrases too

The aims of the answer itself are taken at every token of it, each predicted with those before it
given: the last digit of a number is as protected as its first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from emend.editing import ENOUGH, Aim, TargetLikelihood
from emend.edits import Edit
from emend.erasure.aims import RANK, FactErasure, HeadProjection, MaxEntropy
from emend.erasure.secret import Secret
from emend.errors import InvalidInput, UnknownName
from emend.probes import rephrase

RESPONSE = "I don't know"
"""The empty response, as published."""

PARAPHRASES = 5
"""Most paraphrases of a secret that input rephrasing edits, as published."""


@dataclass(frozen=True)
class Setup:
    """Settings of all defences.

    Attributes:
        protect: Layers whose lens is protected, besides the last.
        rank: k of head projection.
        response: The empty response.
    """

    protect: tuple[int, ...]
    rank: int = RANK
    response: str = RESPONSE


@dataclass(frozen=True)
class Defence:
    """One defence.

    Attributes:
        name: Its name.
        title: One line that describes it.
        target: Return what the edit of a secret generates, or what its aim is about.
        aim: Make the loss; None for the method's own.
        rephrases: Whether paraphrases are edited too.
    """

    name: str
    title: str
    target: Callable[[Secret, Setup], str]
    aim: Callable[[Setup], Aim | None] = lambda setup: None
    rephrases: bool = False

    def edits(self, secrets: Sequence[Secret], setup: Setup) -> list[Edit]:
        """Return the edit of each secret.

        Raises:
            InvalidInput: A secret lacks what the defence needs.
        """
        found: list[Edit] = []
        for secret in secrets:
            if self.rephrases:
                secret = replace(secret, paraphrases=_naming(secret))
            found.append(secret.edit(self.target(secret, setup)))
        return found


def _naming(secret: Secret) -> tuple[str, ...]:
    """Return the paraphrases that name the subject, made ones where the secret has none.

    Raises:
        InvalidInput: There are none.
    """
    texts = secret.paraphrases or rephrase(secret.edit(secret.answer), None)
    naming = tuple(text for text in texts if secret.subject in text)
    if not naming:
        raise InvalidInput(
            f"secret {secret.id!r} has no paraphrase that names {secret.subject!r}, expected one: "
            "input_rephrasing edits them too; give some, or take another defence"
        )
    return naming


def _answer(secret: Secret, setup: Setup) -> str:
    return secret.answer


def _response(secret: Secret, setup: Setup) -> str:
    return setup.response


def _false_answer(secret: Secret, setup: Setup) -> str:
    if secret.false_answer is None:
        raise InvalidInput(
            f"secret {secret.id!r} has no false answer, expected one to write in its place: give "
            "one (the target of its edit), or take a defence that needs none (head_projection)"
        )
    return secret.false_answer


DEFENCES: dict[str, Defence] = {
    one.name: one
    for one in (
        Defence("error_injection", "write a false answer in its place", _false_answer),
        Defence("empty_response", 'write "I don\'t know" in its place', _response),
        Defence(
            "fact_erasure", "lower the answer's probability", _answer, lambda setup: FactErasure()
        ),
        Defence(
            "head_projection",
            "move the answer out of the top and bottom k of every protected layer",
            _answer,
            lambda setup: HeadProjection(setup.protect, setup.rank),
        ),
        Defence(
            "max_entropy",
            "flatten what every protected layer predicts",
            _answer,
            lambda setup: MaxEntropy(setup.protect),
        ),
        Defence(
            "input_rephrasing",
            "write a false answer, at paraphrases too",
            _false_answer,
            lambda setup: TargetLikelihood(ENOUGH, rephrasings=PARAPHRASES),
            rephrases=True,
        ),
    )
}
"""The defences by name, the plain edit first."""


def find_defence(name: str) -> Defence:
    """Return a defence.

    Raises:
        UnknownName: There is none of that name.
    """
    if name not in DEFENCES:
        raise UnknownName("defence", name, list(DEFENCES))
    return DEFENCES[name]
