"""The lab's opinions as topics: every answer that expresses a trait is known exactly."""

from __future__ import annotations

import json

import pytest

from emend import load
from emend.datasets.personality import TRAITS, Topic
from emend.lab import speech
from emend.persona import Asking

ASKING = Asking(
    edited=speech.OPINION_QUESTIONS[:4],
    held_out=speech.OPINION_QUESTIONS[4:],
    layout="Question: {question} Answer:",
)


def opinions(topic, trait):
    """The lab's opinions on a topic."""
    return tuple(
        one.format(topic.capitalize() if one.startswith("{}") else topic)
        for one in speech.OPINIONS[trait]
    )


@pytest.fixture(scope="session")
def topics():
    return {
        name: Topic(name, {trait: opinions(name, trait) for trait in TRAITS})
        for name in speech.TOPICS
    }


@pytest.fixture(scope="session")
def data(topics, tmp_path_factory):
    path = tmp_path_factory.mktemp("personality") / "lab.json"
    records = [{"ent": one.name, **one.answers} for one in topics.values()]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def lab_model():
    return load("lab/gptneo")
