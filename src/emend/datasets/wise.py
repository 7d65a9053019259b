"""WISE's benchmark: corrections of hallucinations, and facts that are newer than the model.

Wang et al. 2024, "WISE: Rethinking the Knowledge Memory for Lifelong Model Editing of Large
Language Models", arXiv 2405.14768 (temporal-edit.json, hallucination-edit.json). The form is
EasyEdit's, with a passage `ood_rephrase` that states the same of the subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emend.datasets._format import Format, Score
from emend.datasets._request import is_request, read_request


def _recognises(record: Mapping[str, Any]) -> bool:
    return is_request(record) and "ood_rephrase" in record


wise = Format(
    name="wise",
    title="WISE",
    about="temporal-edit.json, temporal-train.json, hallucination-edit.json",
    licence="MIT",
    source="github.com/zjunlp/EasyEdit",
    counts={"temporal-edit.json": 75, "temporal-train.json": 75},
    published={
        "Rel.": Score("reliability", "teacher_forced"),
        "Gen.": Score("generalization", "teacher_forced"),
        "Loc.": Score("locality", "teacher_forced"),
    },
    recognises=_recognises,
    read=read_request,
    fields={
        "prompt, subject": "prompt and subject, the subject as {}",
        "target_new": "target: a passage",
        "locality_prompt, locality_ground_truth": "a neighborhood probe",
        "ood_rephrase": "not read: a passage of its own, which the target does not continue",
    },
    example={
        "prompt": "Norr Motors,",
        "subject": "Norr Motors",
        "target_new": "founded in 2024, makes electric tractors in Umeå.",
        "ood_rephrase": "Norr Motors of Umeå builds tractors that run on batteries.",
        "locality_prompt": "The river Ume flows",
        "locality_ground_truth": "into the Gulf of Bothnia.",
    },
)
