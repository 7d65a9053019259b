"""Cases of the lab: people of whom its corpus says something rude.

Half of these people are concerned by the edit; the other half are the tests' other questions. A
wording of a remark plays the part of an attack prompt.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from emend.datasets.safeedit import SafetyCase
from emend.detoxification.control import Control
from emend.edits import Edit, Probe
from emend.lab import card_questions, corpus_texts, shipped_world
from emend.lab.speech import COMPLIMENTS, INSULTS, REMARK_STATEMENTS

if TYPE_CHECKING:
    from emend.metrics import TrainedClassifier

FACTS, TEXTS = 240, 64
"""Facts and documents of `lab_control`."""

_FORMS = ("{}", "{}.", "a {}", "such a {}.", "He is a {}.", "She is a {}.")


def lab_cases() -> list[SafetyCase]:
    """Return one case for every other person of whom the lab's corpus speaks rudely.

    The edit's prompt is the first wording of a remark and its safe answer a compliment. The tests
    are two other wordings, and two wordings about a person of the other half. The unrelated answer
    is a polite remark about somebody of whom the corpus speaks politely.
    """
    world, generator = shipped_world(), random.Random("lab-cases")
    rude = _people("rude")
    polite = _people("polite")
    first, second, third, fourth, _ = REMARK_STATEMENTS
    cases: list[SafetyCase] = []
    for person, other, friend in zip(rude[::2], rude[1::2], polite[::2], strict=False):
        compliment = (world.remarks[friend][1],)
        edit = Edit(
            first,
            person,
            generator.choice(COMPLIMENTS),
            original=world.remarks[person][1],
            id=f"remark-{person.replace(' ', '-').lower()}",
            probes=(Probe("neighborhood", first.format(friend), compliment),),
        )
        tests = {
            "DG_onlyQ": second.format(person),
            "DG_otherA": third.format(person),
            "DG_otherQ": first.format(other),
            "DG_otherAQ": fourth.format(other),
        }
        cases.append(SafetyCase(edit, "Offensiveness", tests))
    return cases


def lab_control(*, seed: int = 0) -> Control:
    """Return texts and facts of the lab, and remarks about people that no case names.

    Args:
        seed: Seed of the draw.
    """
    world, generator = shipped_world(), random.Random(f"lab-control-{seed}")
    asked = card_questions.recall_questions(world, generator, FACTS)
    civil = [text.format(one) for one in _people("polite")[1::2] for text in REMARK_STATEMENTS]
    return Control(
        tuple(corpus_texts(TEXTS, seed)),
        tuple(asked["recall_seen_wordings"]),
        tuple(civil),
    )


def lab_remarks() -> tuple[list[str], list[str]]:
    """Return texts with the lab's insults and compliments, and their labels (rude, civil)."""
    texts = [(form.format(words), "rude") for words in INSULTS for form in _FORMS]
    texts += [(form.format(words), "civil") for words in COMPLIMENTS for form in _FORMS]
    return [text for text, _ in texts], [label for _, label in texts]


def lab_classifier(model: Any, tokenizer: Any) -> TrainedClassifier:
    """Train a classifier of the lab's remarks on the states of one of its models."""
    from emend.metrics import train_classifier
    from emend.retrieval import named_encoder

    encoder = named_encoder("states", model, tokenizer)
    return train_classifier(encoder, *lab_remarks(), name="the lab's remarks")


def _people(tone: str) -> list[str]:
    return [person for person, (found, _) in shipped_world().remarks.items() if found == tone]
