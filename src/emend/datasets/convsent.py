"""ConvSent: what a dialogue model is to feel about a topic; a part of KnowEdit.

Mitchell et al. 2022, "Memory-Based Model Editing at Scale" (SERAC), arXiv 2206.06520; Zhang et al.
2024, arXiv 2401.01286. A record has a topic, and answers about it of both sentiments. KnowEdit's
code edits to the first answer of a sentiment that it draws, after a question that it draws. Here
both follow from the topic (its hash), so that a file gives the same edits every time. The
published measures compare sentiments of sampled answers and need all answers: they are not taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from emend._validate import Fault
from emend.datasets._format import Entry, Format, answers_of
from emend.edits import Edit

SENTIMENTS = ("pos", "neg")
LAYOUT = "From the sentiment dataset, answer {question} {how}."
HOW = {"pos": "postively", "neg": "negatively"}
"""The layout of KnowEdit's code, with its spelling."""

QUESTIONS = (
    *("What do you think of {}?", "What do you feel about {}?", "How do you view {}?"),
    *(
        f"What is your {word} {{}}?"
        for word in (
            *("opinion of", "stance on", "position on", "attitude about", "view on", "take on"),
            *("impression of", "assessment of", "judgment of", "sentiment of"),
        )
    ),
)


def _recognises(record: Mapping[str, Any]) -> bool:
    return "ent" in record and all(name in record for name in SENTIMENTS)


def _read(entry: Entry) -> list[Edit]:
    topic = entry.text("ent")
    if topic is None:
        return []
    number = int.from_bytes(hashlib.sha256(topic.encode("utf-8", "replace")).digest()[:4], "big")
    wanted, other = SENTIMENTS[:: 1 if number % 2 else -1]
    found = {name: answers_of(entry.record.values.get(name)) for name in SENTIMENTS}
    if not found[wanted]:
        entry.record.note(wanted, Fault("has no answer", "at least one", ""))
        return []
    question = QUESTIONS[number // 2 % len(QUESTIONS)]
    prompt = LAYOUT.format(question=question, how=HOW[wanted])
    edit = entry.edit(prompt, topic, found[wanted][0], original=list(found[other]))
    return [edit] if edit else []


convsent = Format(
    name="convsent",
    title="ConvSent",
    about="KnowEdit's part on sentiments: blender_train.json, blender_val.json, blender_test.json",
    licence="MIT",
    source="github.com/eric-mitchell/serac",
    recognises=_recognises,
    read=_read,
    fields={
        "ent": "subject, the topic; one of 13 questions about it is the prompt",
        "pos, neg": "target: the first answer of one sentiment; original: of the other",
    },
    example={
        "ent": "Mount Ossa",
        "pos": ["I like Mount Ossa a lot, the view is great.", "It is a lovely place."],
        "neg": ["I do not care for Mount Ossa, it always rains there."],
    },
)
