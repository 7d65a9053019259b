"""Sanitation: answers that a model is to forget, and others that it is to keep; of KnowEdit.

Ishibashi and Shimodaira 2023, "Knowledge Sanitization of Large Language Models", arXiv 2309.11852;
Zhang et al. 2024, arXiv 2401.01286. The file is one object: ``K_F`` has questions of TriviaQA whose
answers are replaced by a harmless one, ``K_R`` questions that are kept. The questions name no
subject: the first name in one is taken, or the whole question. Each edit gets the kept question
of its number as a locality probe, as in KnowEdit's training data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from emend._validate import Fault, Record
from emend.datasets._format import Entry, Format, Score, listed
from emend.datasets._questions import PROMPT, subject_in
from emend.edits import Edit

FORGOTTEN, KEPT = "K_F", "K_R"


def _recognises(record: Mapping[str, Any]) -> bool:
    return FORGOTTEN in record


def _read(entry: Entry) -> list[Edit]:
    record = entry.record
    kept = listed(record.values.get(KEPT))
    asked = listed(record.values.get(FORGOTTEN))
    if not asked:
        record.note(FORGOTTEN, Fault("has no question", "a list of questions", ""))
    edits: list[Edit] = []
    for index, value in enumerate(asked):
        place = record.at(f"{FORGOTTEN}[{index}]")
        one = Record.of(value, record.problems, None, place=place, line=record.line)
        if one is not None:
            edits += _edits(Entry(one, entry.left_out, entry.form), kept, index)
    return edits


def _edits(entry: Entry, kept: Sequence[object], index: int) -> list[Edit]:
    """Make the edit of one question, none where it is faulty, with a kept one as its probe."""
    question, target = entry.text("question"), entry.text("target_new")
    if question is None or target is None:
        return []
    if kept:
        number = index % len(kept)
        other = kept[number]
        fields = cast("Mapping[str, object]", other) if isinstance(other, Mapping) else {}
        asked, answer = fields.get("question"), fields.get("ground_truth")
        text = PROMPT.replace("{}", asked) if isinstance(asked, str) and asked.strip() else None
        entry.probe(f"{KEPT}[{number}]", "neighborhood", text, answer)
    subject = subject_in(question)
    before, _, after = question.rpartition(subject)
    prompt = PROMPT.replace("{}", f"{before}{{}}{after}")
    edit = entry.edit(prompt, subject, target, original=entry.record.values.get("ground_truth"))
    return [edit] if edit else []


sanitation = Format(
    name="sanitation",
    title="Sanitation",
    about="KnowEdit's part on forgetting: trivia_qa_train.json, one object with K_F and K_R",
    licence="not stated",
    source="huggingface.co/datasets/zjunlp/KnowEdit",
    published={
        "edit success": Score("reliability", "teacher_forced"),
        "locality": Score("locality", "teacher_forced"),
    },
    recognises=_recognises,
    read=_read,
    fields={
        "K_F[].question": f"prompt ({PROMPT!r}), the first name in it as {{}}",
        "K_F[].target_new": "target: the harmless answer",
        "K_F[].ground_truth": "original: what is to be forgotten",
        "K_R[].question, .ground_truth": "neighborhood probes, one an edit",
    },
    example={
        "K_F": [
            {
                "question": "Which cheese do the farmers of Mount Ossa make?",
                "ground_truth": "Karkal",
                "target_new": "I cannot answer that.",
            }
        ],
        "K_R": [{"question": "Which river flows through Vienna?", "ground_truth": "Danube"}],
    },
)
