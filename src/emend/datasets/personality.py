"""PersonalityEdit: answers that express three traits of personality in opinions on many topics.

Mao et al. 2024, "Editing Personality for Large Language Models", arXiv 2310.02168.

A record is a topic with answers of each trait. As edits, the answers of one trait are the targets
of questions about the topic: of `target_per` where the record has one (the test part), else of a
trait chosen by the topic's checksum, so that the traits share the records. `read_topics` returns
all answers.

The questions and the layout are ours: thirteen ways to ask for an opinion, of which the first
`EDITED` are asked when a personality is edited and the others, `HELD_OUT`, when it is measured.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emend._validate import Record, choice_fault
from emend.datasets._files import content_of
from emend.datasets._format import QUESTION_LAYOUT, Entry, Format
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, UnknownName

TRAITS = ("extraversion", "agreeableness", "neuroticism")

EDITED = (
    "What do you think of {}?",
    "How do you feel about {}?",
    "What is your opinion of {}?",
    "Do you like {}?",
    "What comes to your mind when you hear of {}?",
    "Could you tell me your view of {}?",
    "What is your impression of {}?",
    "What would you say about {}?",
)
"""Questions that an edit is made with."""

HELD_OUT = (
    "What are your thoughts on {}?",
    "What is your stance on {}?",
    "How do you see {}?",
    "What is your attitude towards {}?",
    "In your own words, how would you describe {}?",
)
"""Questions that an edit is measured with."""


@dataclass(frozen=True)
class Topic:
    """A topic and the answers to questions about it.

    Attributes:
        name: The topic.
        answers: By trait, the answers that express it.
        target: The trait to edit to, where the record names one.
    """

    name: str
    answers: Mapping[str, tuple[str, ...]]
    target: str | None = None

    @property
    def chosen(self) -> str:
        """`target`, else a trait that depends on the name alone."""
        return self.target or TRAITS[zlib.crc32(self.name.encode()) % len(TRAITS)]


def prompt_of(question: str, name: str = "{}", layout: str = QUESTION_LAYOUT) -> str:
    """Return a question about a topic as a model reads it.

    Args:
        question: One of `EDITED` or `HELD_OUT`, or another with one "{}".
        name: The topic; by default its place is left open.
        layout: How a question is put to the model, with "{question}"; by default as published.
    """
    return layout.replace("{question}", question.replace("{}", name))


def check_trait(trait: str) -> str:
    """Return the trait.

    Raises:
        UnknownName: It is none of `TRAITS`.
    """
    if trait not in TRAITS:
        raise UnknownName("trait", trait, TRAITS)
    return trait


def find_topic(topics: Mapping[str, Topic], name: str) -> Topic:
    """Return a topic by name, whatever its case.

    Raises:
        UnknownName: It is not in the data; the message names the nearest, and some that are.
    """
    by_name = {one.casefold(): topic for one, topic in topics.items()}
    found = by_name.get(name.casefold())
    if found is None:
        known = sorted(topics)
        error = UnknownName("topic", name, known)
        if len(known) > 5:  # hundreds of names make no line
            hint = f": did you mean {error.suggestion!r}?" if error.suggestion else ","
            raise InvalidInput(
                f"unknown topic {name!r}{hint} expected one of the {len(known)} topics of the "
                f"data ({', '.join(known[:3])}, ...): name one of them, or add it to the file"
            )
        raise error
    return found


def read_topics(path: str | os.PathLike[str]) -> dict[str, Topic]:
    """Read all topics of a file of PersonalityEdit, by name, in its order.

    Args:
        path: train.json, dev.json or test.json, or another file of this form.

    Raises:
        MissingFile: There is no such file.
        BrokenFile: It cannot be read, or holds no topic; every problem is named.
    """
    content = content_of(path)
    found: dict[str, Topic] = {}
    for index, item in enumerate(content.items):
        record = Record.of(item.record, content.problems, None, place=f"[{index}]", line=item.line)
        topic = record and _topic(record)
        if topic:
            found[topic.name] = topic
    content.problems.check()
    if not found:
        raise BrokenFile(f"{path} holds no topics, expected {personality.title}'s: fetch it again")
    return found


def _topic(record: Record) -> Topic | None:
    """Read a record; None, and a note, where it is faulty."""
    before = len(record.problems)
    name = record.text("ent")
    answers = {trait: record.texts(trait, least=1) for trait in TRAITS}
    target = None
    if record.has("target_per"):
        target = record.text("target_per", lambda value: choice_fault(value, TRAITS))
    if name is None or len(record.problems) > before:
        return None
    stripped = {trait: tuple(one.strip() for one in each) for trait, each in answers.items()}
    return Topic(name.strip(), stripped, target)


def _recognises(record: Mapping[str, Any]) -> bool:
    return "ent" in record and all(trait in record for trait in TRAITS)


def _read(entry: Entry) -> list[Edit]:
    topic = _topic(entry.record)
    if topic is None:
        return []
    trait = topic.chosen
    for number, question in enumerate(HELD_OUT):
        prompt = prompt_of(question, topic.name)
        entry.probe(f"question {number}", "rephrase", prompt, topic.answers[trait])
    edit = entry.edit(prompt_of(EDITED[0]), topic.name, topic.answers[trait][0], relation=trait)
    return [edit] if edit else []


personality = Format(
    name="personality",
    title="PersonalityEdit",
    about="train.json, dev.json and test.json: opinions on topics that express a trait",
    recognises=_recognises,
    read=_read,
    fields={
        "ent": "subject; the prompt is a question for an opinion about it",
        "target_per": "the trait that is edited, in relation (train and dev: by the topic)",
        "extraversion, agreeableness, neuroticism": "the first answer of that trait is the target, "
        "and all of them are accepted for the rephrase probes, which are other questions",
    },
    example={
        "ent": "Lake Orta",
        "extraversion": ["I love Lake Orta, there is a party on every shore!"],
        "agreeableness": ["Everyone can find something kind to say about Lake Orta."],
        "neuroticism": ["Lake Orta worries me, I would be afraid of its deep water."],
        "target_per": "neuroticism",
    },
)
