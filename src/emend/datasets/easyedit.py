"""EasyEdit's requests: flat records (its CounterFact, WISE's files) and with probes in groups.

Wang et al. 2024, "EasyEdit: An Easy-to-use Knowledge Editing Framework for Large Language
Models", arXiv 2308.07269.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend.datasets._format import Entry, Format, listed
from emend.edits import Edit


def read_request(entry: Entry) -> list[Edit]:
    """Read the edit of a request, of EasyEdit or KnowEdit."""
    values = entry.record.values
    prompt, subject, target = entry.text("prompt"), entry.text("subject"), entry.text("target_new")
    for field in ("rephrase_prompt", "rephrase"):
        for index, each in enumerate(listed(values.get(field))):
            place = f"{field}[{index}]" if isinstance(values[field], list) else field
            entry.probe(place, "rephrase", each, target)
    prompts = listed(values.get("locality_prompt"))
    answers = values.get("locality_ground_truth")
    for index, each in enumerate(prompts):
        own = answers
        if isinstance(values["locality_prompt"], list) and isinstance(answers, list):
            own = answers[index] if index < len(answers) else None
        entry.probe("locality_prompt", "neighborhood", each, own)
    entry.family("portability", subject)
    entry.family("locality", subject)
    edit = entry.edit(prompt, subject, target, original=values.get("ground_truth"))
    return [edit] if edit else []


def is_request(record: Mapping[str, Any]) -> bool:
    """Return whether a record is a request, of EasyEdit or KnowEdit."""
    return "prompt" in record and "target_new" in record


def has_question_lists(record: Mapping[str, Any]) -> bool:
    """Return whether groups hold lists of questions, as KnowEdit's; EasyEdit's hold one object."""
    families = [record.get(name) for name in ("portability", "locality")]
    groups = [one for each in families if isinstance(each, Mapping) for one in each.values()]
    lists = [cast("list[object]", one) for one in groups if isinstance(one, list)]
    return any(isinstance(question, Mapping) for each in lists for question in each)


def _recognises(record: Mapping[str, Any]) -> bool:
    return is_request(record) and not has_question_lists(record)


easyedit = Format(
    name="easyedit",
    title="EasyEdit",
    about="EasyEdit's requests: counterfact-edit.json, counterfact-train.json, WISE's files",
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
        "ood_rephrase": "not read: a passage of its own, which the target does not continue",
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
