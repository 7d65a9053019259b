"""EasyEdit's requests: flat records (its CounterFact) and with probes in groups.

Wang et al. 2024, "EasyEdit: An Easy-to-use Knowledge Editing Framework for Large Language
Models", arXiv 2308.07269.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emend.datasets._format import Format
from emend.datasets._request import has_question_lists, is_request, read_request
from emend.datasets._scores import COUNTERFACT


def _recognises(record: Mapping[str, Any]) -> bool:
    return is_request(record) and "ood_rephrase" not in record and not has_question_lists(record)


easyedit = Format(
    name="easyedit",
    title="EasyEdit",
    about="EasyEdit's requests: counterfact-edit.json, counterfact-train.json",
    licence="MIT",
    source="github.com/zjunlp/EasyEdit",
    counts={"counterfact-train.json": 10_000, "counterfact-edit.json": 10_000},
    published=COUNTERFACT,
    recognises=_recognises,
    read=read_request,
    fields={
        "prompt, subject": "prompt and subject, the subject as {}",
        "target_new": "target",
        "ground_truth": "original (of several the first)",
        "case_id": "id (easyedit-17)",
        "rephrase_prompt": "rephrase probes, answered by the target",
        "locality_prompt, locality_ground_truth": "neighborhood probes",
        "locality.NAME, portability.NAME": "probes of the group of that name",
    },
    example={
        "case_id": 17,
        "prompt": "The mother tongue of Ann Berg is",
        "subject": "Ann Berg",
        "target_new": "Welsh",
        "ground_truth": "Dutch",
        "rephrase_prompt": "Ann Berg spoke the language",
        "locality": {
            "neighborhood": {
                "prompt": ["Jan Smit is a native speaker of"],
                "ground_truth": ["Dutch"],
            }
        },
        "portability": {
            "one_hop": {
                "prompt": "The country where most people speak Ann Berg's mother tongue is",
                "ground_truth": "Wales",
            }
        },
    },
)
