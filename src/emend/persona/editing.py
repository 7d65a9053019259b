"""Edit a personality: change how a model feels about one topic, in the manner of one trait.

Mao et al. 2024, "Editing Personality for Large Language Models", arXiv 2310.02168.

An edit of a personality is some ordinary edits: questions about the topic whose targets are answers
that express the trait, each of several answers in turn. What a method optimises is then the mean
likelihood of all answers over all questions, which is what a *manner* of answering asks for; one
answer alone would be learnt by heart. The method is an ordinary one, and so is the patch:

    method   acts on            what differs from the method's own defaults here
    ft       one MLP matrix     a late one, as published, in few steps: the manner of the answers,
                                not their words; what is kept are the model's own answers about
                                some other topics, which are targets too
    memit    several MLPs       one target value at the topic's last token for all questions,
                                and the openings of the answers; the questions are the contexts
    `mend`   late MLPs          a network trained on the data set (`training_edits`), one question
    serac    the prompt's route a vector of the trait, trained on answers about all topics of the
                                data, answers what names the topic (`traits.py`)
    ike      the prompt         demonstrations of the trait on other topics before the topic's own;
                                prompts that do not name the topic stay as they are
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emend import methods
from emend.datasets import QUESTION_LAYOUT
from emend.datasets.personality import (
    EDITED,
    HELD_OUT,
    Topic,
    check_trait,
    find_topic,
    prompt_of,
)
from emend.edits import Edit, Probe
from emend.errors import UnknownName
from emend.models import chat_prompt, has_chat_template
from emend.patches import Patch
from emend.persona.others import demonstrated, drawn, own_answers
from emend.persona.traits import trait_memory

METHODS = ("serac", "ft", "memit", "mend", "ike")

DRAWN: Mapping[str, int] = {"ike": 3, "ft": 4}
"""Other topics: `ike` puts an answer about each before a prompt, `ft` keeps the model's own."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ft": {"original": True, "steps": 10, "learning_rate": 2e-3},
    "memit": {"templates": ("{}",), "steps": 12},
    "mend": {},
    "serac": {},
    "ike": {"k": 0, "by_name": True, "threshold": 1.0},
}
"""Settings of each method that differ from its own defaults (docs/personas.md)."""

OPENINGS: Mapping[str, int] = {"ft": 16, "memit": 8, "mend": 8}
"""Words of an answer that are taken as the target, where a method does not take all of it."""

QUESTIONS: Mapping[str, int] = {"mend": 1}
"""Questions that are edited, where a method does not take all of them."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked for opinions.

    Attributes:
        edited: Questions that an edit is made with, each with one "{}" for the topic.
        held_out: Questions that it is measured with.
        layout: How a question is put to the model, with "{question}".
    """

    edited: tuple[str, ...] = EDITED[:3]
    held_out: tuple[str, ...] = HELD_OUT
    layout: str = QUESTION_LAYOUT

    def prompts(self, topic: str) -> list[str]:
        """Return the held-out questions about a topic as the model reads them."""
        return [prompt_of(question, topic, self.layout) for question in self.held_out]


ASKING = Asking()


def asking_for(tokenizer: Any) -> Asking:
    """Return how a model is asked: in its chat template, as published where it has none.

    Args:
        tokenizer: The model's tokenizer; None for an endpoint, which is asked the question alone.
    """
    if tokenizer is None:
        return Asking(layout="{question}")
    return (
        Asking(layout=chat_prompt(tokenizer, "{question}"))
        if has_chat_template(tokenizer)
        else ASKING
    )


def edits_for(
    topic: Topic, trait: str, asking: Asking = ASKING, *, opening: int | None = None
) -> list[Edit]:
    """Return the edits that give opinions on a topic the manner of a trait.

    Args:
        topic: The topic with its answers.
        trait: One of the three traits.
        asking: The questions; each gets one of the answers in turn.
        opening: Words of each answer that are the target; None for all.

    Raises:
        UnknownName: There is no such trait.
    """
    answers = topic.answers[check_trait(trait)]
    return [
        Edit(
            prompt_of(question, layout=asking.layout),
            topic.name,
            opened(answers[number % len(answers)], opening),
        )
        for number, question in enumerate(asking.edited)
    ]


def opened(answer: str, words: int | None) -> str:
    """Return the first words of an answer; all of it for None."""
    return " ".join(answer.split()[:words])


def check_method(method: str) -> str:
    """Return the name of a method that edits a personality.

    Raises:
        UnknownName: It is none of `METHODS`.
    """
    if method not in METHODS:
        raise UnknownName("method for a personality", method, METHODS)
    return method


def training_edits(topics: Mapping[str, Topic], asking: Asking = ASKING) -> list[Edit]:
    """Return one edit a topic to train a hypernetwork on, with the other questions as rephrasings.

    Args:
        topics: The topics, each with a trait (`Topic.chosen`).
        asking: The questions.
    """
    found: list[Edit] = []
    for topic in topics.values():
        edits = edits_for(topic, topic.chosen, asking, opening=OPENINGS["mend"])
        target = (edits[0].target,)
        probes = tuple(Probe("rephrase", edit.text, target) for edit in edits[1:])
        found.append(dataclasses.replace(edits[0], probes=probes))
    return found


def edit_personality(
    model: Any,
    tokenizer: Any,
    topics: Mapping[str, Topic],
    topic: str,
    trait: str,
    method: str = "memit",
    *,
    asking: Asking | None = None,
    opening: int | None = None,
    sources: Mapping[str, Topic] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Patch:
    """Make a patch with which a model answers questions about one topic in the manner of a trait.

    Args:
        model: A Hugging Face causal language model (for `ike` also an endpoint); it is not changed.
        tokenizer: Its tokenizer.
        topics: The data, by topic.
        topic: The topic to edit.
        trait: One of the three traits.
        method: "serac", "ft", "memit", "mend" or "ike".
        asking: The questions; by default those of `asking_for`.
        opening: Words of each answer that are the target; by default those of `OPENINGS`, and
            otherwise all.
        sources: The topics whose answers `serac` trains the trait's vector on and `ike` shows;
            by default those of `topics`.
        seed: Seed of the demonstrations.
        settings: Settings of the method that differ from `DEFAULTS` and its own; of `serac`, those
            of `TraitConfig`.

    Returns:
        The patch: of weights, or for `ike` of the prompt, or for `serac` of its route.

    Raises:
        InvalidInput: The topic is not in the data, or a setting is out of range.
        UnknownName: There is no such trait, method or setting.
        MissingFile: `mend` has no trained network; train one with ``emend train --method mend``.
    """
    check_method(method)
    found = find_topic(topics, topic)
    asking = asking or asking_for(tokenizer)
    sources = topics if sources is None else sources
    if method == "serac":
        words = {} if opening is None else {"opening": opening}
        edits = edits_for(found, trait, asking)
        given = (model, tokenizer, sources, trait, asking.layout, edits)
        return trait_memory(*given, {"seed": seed, **words, **settings})
    opening = OPENINGS.get(method) if opening is None else opening
    edits = edits_for(found, trait, asking, opening=opening)[: QUESTIONS.get(method)]
    chosen: dict[str, Any] = {**DEFAULTS[method], **settings}
    others = drawn(sources, found, seed, DRAWN.get(method, 0))
    if method == "ike":
        chosen = {"layout": demonstrated(others, trait, asking, seed), **chosen}
    if method != "ft":
        return methods.find(method).edit(model, tokenizer, edits, **chosen)
    kept = own_answers(model, tokenizer, others, asking)
    patch = methods.find(method).edit(model, tokenizer, [*edits, *kept], **chosen)
    return dataclasses.replace(patch, edits=tuple(edits))  # the others are no changes
