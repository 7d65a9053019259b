"""KnowEdit: its ZsRE, WikiData (recent, counterfact) and WikiBio parts.

Zhang et al. 2024, "A Comprehensive Study of Knowledge Editing for Large Language Models",
arXiv 2401.01286.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emend.datasets._format import Entry, Format
from emend.datasets._request import has_question_lists, is_request, read_request
from emend.datasets._scores import KNOWEDIT
from emend.edits import Edit

_BIOGRAPHY = ("text", "labels", "concept")


def _recognises(record: Mapping[str, Any]) -> bool:
    if all(name in record for name in _BIOGRAPHY):
        return True
    return is_request(record) and has_question_lists(record)


def _read(entry: Entry) -> list[Edit]:
    if "concept" not in entry.record.values:
        return read_request(entry)
    prompt, target, subject = entry.text("text"), entry.text("labels"), entry.text("concept")
    entry.family("locality", subject)
    edit = entry.edit(prompt, subject, target)
    return [edit] if edit else []


knowedit = Format(
    name="knowedit",
    title="KnowEdit",
    about="ZsRE-test-all.json, the WikiData recent and counterfact parts, wikibio-test-all.json",
    licence="MIT",
    source="huggingface.co/datasets/zjunlp/KnowEdit",
    counts={"ZsRE-test-all.json": 1_304, "train_cf.json": 1_428, "wikibio-test-all.json": 306},
    published=KNOWEDIT,
    recognises=_recognises,
    read=_read,
    fields={
        "prompt, subject": "prompt and subject, the subject as {}",
        "target_new": "target",
        "ground_truth": "original (of several the first)",
        "rephrase_prompt": "a rephrase probe, answered by the target",
        "portability.Subject_Aliasing": "subject_alias probes",
        "portability.Reasoning": "one_hop probes",
        "portability.Logical_Generalization": "reverse_relation probes where the subject answers "
        "them, else one_hop",
        "locality.Relation_Specificity, .Forgetfulness": "probes of these groups",
        "text, concept, labels": "prompt, subject and target (WikiBio)",
        "cond": "not read: it repeats the rest",
    },
    example={
        "subject": "Mira Dahl",
        "prompt": "The place of death of Mira Dahl is",
        "target_new": "Oslo",
        "ground_truth": "Rome",
        "portability": {
            "Subject_Aliasing": [
                {"prompt": "The place of death of M. Dahl is", "ground_truth": "Oslo"}
            ],
            "Reasoning": [
                {
                    "prompt": "The country of the place of death of Mira Dahl is",
                    "ground_truth": [["Norway", "NO"]],
                }
            ],
        },
        "locality": {
            "Relation_Specificity": [
                {"prompt": "The gender of Mira Dahl is", "ground_truth": [["female"]]}
            ]
        },
    },
)
