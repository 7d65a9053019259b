"""Relations of the LRE data: one file a relation, whose facts become edits to another object.

Hernandez et al. 2023, "Linearity of Relation Decoding in Transformer Language Models", arXiv
2308.09124.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

from emend._validate import Fault, shown
from emend.datasets._format import Entry, Format, answers_of, listed, text_of
from emend.edits import Edit

NEIGHBOURS = 3
"""Other subjects whose answers must not change, as probes of each edit."""

Sample = tuple[str, str]
"""A subject and its object."""


def _recognises(record: Mapping[str, Any]) -> bool:
    return "prompt_templates" in record and "samples" in record


def _read(entry: Entry) -> list[Edit]:
    record = entry.record
    values = record.values
    prompts = [
        one
        for one in listed(values.get("prompt_templates"))
        if isinstance(one, str) and "{}" in one
    ]
    samples = _samples(entry)
    if not record.note("prompt_templates", None if prompts else _no_prompt()):
        return []
    objects = sorted({found for _, found in samples})
    if len(objects) < 2:
        record.note("samples", Fault(f"have {len(objects)} objects", "two or more", ""))
        return []
    name = text_of(record, "name") or "relation"
    return [
        edit
        for number in range(len(samples))
        if (edit := _edit(entry, name, prompts, samples, objects, number)) is not None
    ]


def _edit(
    entry: Entry,
    name: str,
    prompts: Sequence[str],
    samples: Sequence[Sample],
    objects: Sequence[str],
    number: int,
) -> Edit | None:
    """Make the edit of a sample: another object of the relation, drawn by its subject."""
    entry = Entry(entry.record, entry.left_out, entry.form)  # with probes of its own
    subject, original = samples[number]
    draw = random.Random(f"{name}-{subject}")
    target = draw.choice([one for one in objects if one != original])
    for other in prompts[1:]:
        entry.probe("prompt_templates", "rephrase", other.replace("{}", subject), target)
    others = [one for one in samples if one[0] != subject]
    for neighbour, answer in draw.sample(others, min(NEIGHBOURS, len(others))):
        asked = prompts[0].replace("{}", neighbour)
        entry.probe("samples", "neighborhood", asked, answer)
    return entry.edit(prompts[0], subject, target, original=original, relation=name)


def _samples(entry: Entry) -> list[Sample]:
    """Read the samples, and note those that cannot be used or repeat a subject."""
    record = entry.record
    found: dict[str, str] = {}
    for index, one in enumerate(listed(record.values.get("samples"))):
        sample = cast("Mapping[str, object]", one) if isinstance(one, Mapping) else {}
        subject, answer = answers_of(sample.get("subject")), answers_of(sample.get("object"))
        place = f"samples[{index}]"
        if not subject or not answer:
            fault = Fault("has no subject or no object", "two texts", "remove the sample")
            record.note(place, fault)
        elif subject[0] in found:
            fault = Fault(f"repeats the subject {shown(subject[0])}", "each once", "")
            entry.left_out.note(fault, record.at(place), record.line)
        else:
            found[subject[0]] = answer[0]
    return list(found.items())


def _no_prompt() -> Fault:
    return Fault("hold no {}", "a template with {} for the subject", "write one")


lre = Format(
    name="lre",
    title="LRE relations",
    about="one file a relation (country_capital_city.json, ...); each target another object",
    licence="MIT",
    source="github.com/evandez/relations",
    counts={"country_capital_city.json": 24, "landmark_on_continent.json": 947},
    recognises=_recognises,
    read=_read,
    fields={
        "prompt_templates": "the first is the prompt, the others are rephrase probes",
        "samples[].subject, .object": "subject and original of one edit each",
        "name": "relation",
        "target": "not in the file: another object of the relation, drawn by relation and subject",
        "neighborhood probes": f"{NEIGHBOURS} other subjects with their own objects",
        "prompt_templates_zs, properties": "not read",
    },
    example={
        "name": "country capital city",
        "prompt_templates": ["The capital city of {} is", "The capital of {} is"],
        "samples": [
            {"subject": "France", "object": "Paris"},
            {"subject": "Norway", "object": "Oslo"},
        ],
    },
)
