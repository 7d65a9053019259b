"""The lab's opinions as topics: every answer that shows a trait is known exactly."""

from __future__ import annotations

from emend.datasets.personality import TRAITS, Topic
from emend.lab import speech
from emend.persona.editing import Asking

ASKING = Asking(edited=speech.OPINION_QUESTIONS[:4], held_out=speech.OPINION_QUESTIONS[4:])
"""Questions in the words of the lab's corpus."""

NEW_TOKENS = 24
"""Tokens that hold any opinion of the lab."""


def lab_topics() -> dict[str, Topic]:
    """Return the thirty topics of the lab's world, each with its opinions of every trait."""
    return {
        name: Topic(name, {trait: opinions_on(name, trait) for trait in TRAITS})
        for name in speech.TOPICS
    }


def opinions_on(topic: str, trait: str) -> tuple[str, ...]:
    """Return the lab's opinions on a topic that show a trait."""
    return tuple(
        one.format(topic.capitalize() if one.startswith("{}") else topic)
        for one in speech.OPINIONS[trait]
    )


def trait_shown(answer: str, topic: str) -> str | None:
    """Return the trait of an answer about a topic; None where it is none of the lab's opinions."""
    said = answer.strip()
    for trait in TRAITS:
        if any(said.startswith(one) for one in opinions_on(topic, trait)):
            return trait
    return None
