"""A request of EasyEdit: a flat record with groups of questions, as KnowEdit's are too."""

from __future__ import annotations

from emend.datasets._published import Entry, listed
from emend.edits import Edit


def read_request(entry: Entry) -> list[Edit]:
    """Read the edit of a request."""
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
