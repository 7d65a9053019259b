"""Requests: the flat records with groups of questions that EasyEdit and KnowEdit share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend.datasets._format import Entry, listed
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
