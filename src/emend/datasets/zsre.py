"""zsRE as MEND released it, and the portability questions that were added to it.

Levy et al. 2017, arXiv 1706.04115; the form is that of Mitchell et al. 2022, arXiv 2110.11309
(zsre_mend_train.json, zsre_mend_eval.json), the questions are those of Yao et al. 2023, arXiv
2305.13172 (zsre_mend_eval_portability_gpt4.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend.datasets._format import Entry, Format, Score, answers_of
from emend.edits import Edit


def _recognises(record: Mapping[str, Any]) -> bool:
    return "src" in record and "alt" in record


def _read(entry: Entry) -> list[Edit]:
    values = entry.record.values
    prompt, subject, target = entry.text("src"), entry.text("subject"), entry.text("alt")
    if values.get("rephrase"):
        entry.probe("rephrase", "rephrase", values["rephrase"], target)
    if values.get("loc"):
        entry.probe("loc", "neighborhood", values["loc"], values.get("loc_ans"))
    further = values.get("portability")
    if isinstance(further, Mapping) and further:
        asked = cast("Mapping[str, object]", further)
        place = "portability.New Question"
        entry.probe(place, "one_hop", asked.get("New Question"), asked.get("New Answer"))
    original = answers_of(values.get("answers")) or answers_of(values.get("pred"))
    edit = entry.edit(prompt, subject, target, original=original)
    return [edit] if edit else []


zsre = Format(
    name="zsre",
    title="zsRE",
    about="zsre_mend_train.json, zsre_mend_eval.json, zsre_mend_eval_portability_gpt4.json",
    licence="MIT",
    source="github.com/kmeng01/rome",
    counts={"zsre_mend_eval.json": 19_086, "zsre_mend_eval_portability_gpt4.json": 1_037},
    published={
        "efficacy": Score("reliability", "teacher_forced"),
        "paraphrase": Score("generalization", "teacher_forced", "rephrase"),
        "specificity": Score("locality", "correct_tokens", "neighborhood"),
        "portability": Score("portability", "teacher_forced"),
    },
    recognises=_recognises,
    read=_read,
    fields={
        "src, subject": "prompt and subject: the question as it is, the subject as {}",
        "alt": "target",
        "answers": "original (where there are none, pred)",
        "rephrase": "a rephrase probe, answered by the target",
        "loc, loc_ans": "a neighborhood probe, its prompt as it is ('nq question: ...')",
        "portability.New Question, New Answer": "a one_hop probe",
        "cond, portability.Recalled Relation": "not read: they repeat the rest",
    },
    example={
        "subject": "Orla Finch",
        "src": "Which city was Orla Finch born in?",
        "pred": "Cork",
        "rephrase": "Where was Orla Finch born?",
        "alt": "Bergen",
        "answers": ["Cork"],
        "loc": "nq question: who wrote the blue lamp",
        "loc_ans": "Ted Vale",
        "cond": "Cork >> Bergen || Which city was Orla Finch born in?",
        "portability": {
            "Recalled Relation": "(Bergen, country, Norway)",
            "New Question": "In which country was Orla Finch born?",
            "New Answer": "Norway",
        },
    },
)
