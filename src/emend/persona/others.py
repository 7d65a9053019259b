"""What an edit of a personality takes from other topics: answers to show, and answers to keep."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emend.datasets.personality import Topic, prompt_of
from emend.edits import Edit
from emend.edits.joining import sentence
from emend.models import base, generate

if TYPE_CHECKING:
    from emend.persona.editing import Asking

OWN_TOKENS = 16
"""Tokens of such an own answer."""


def drawn(topics: Mapping[str, Topic], topic: Topic, seed: int, count: int) -> list[Topic]:
    """Draw other topics."""
    others = [one for one in topics.values() if one.name != topic.name]
    return random.Random(f"{seed}-{topic.name}").sample(others, min(count, len(others)))


def own_answers(model: Any, tokenizer: Any, others: Sequence[Topic], asking: Asking) -> list[Edit]:
    """Return edits whose targets are the unedited model's own answers about other topics."""
    questions = [asking.edited[n % len(asking.edited)] for n in range(len(others))]
    pairs = list(zip(questions, others, strict=True))
    prompts = [prompt_of(question, one.name, asking.layout) for question, one in pairs]
    with base(model):
        texts = generate(model, tokenizer, prompts, max_new_tokens=OWN_TOKENS, stop="\n")
    return [
        Edit(prompt_of(question, layout=asking.layout), one.name, text.strip())
        for (question, one), text in zip(pairs, texts, strict=True)
        if text.strip()
    ]


def demonstrated(others: Sequence[Topic], trait: str, asking: Asking, seed: int) -> str:
    """Return a layout of `ike` that begins with answers of the trait about other topics.

    They are written as published also where the model has a chat template, which would repeat its
    system prompt before each.
    """
    generator = random.Random(seed)
    shown = [
        sentence(
            prompt_of(generator.choice(asking.edited), one.name),
            generator.choice(one.answers[trait]),
        )
        for one in others
    ]
    # A layout has each of its two fields once.
    plain = [text for text in shown if "{fact}" not in text and "{prompt}" not in text]
    return "\n\n".join([*plain, "{fact}", "{prompt}"])
