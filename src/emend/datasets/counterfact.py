"""CounterFact and multi_counterfact, as published.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262;
multi_counterfact (Meng et al. 2023, arXiv 2210.07229) is the same form without conflicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend.datasets._format import Entry, Format, listed, text_of
from emend.datasets._scores import COUNTERFACT
from emend.edits import Edit


def _recognises(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("requested_rewrite"), Mapping)


def _read(entry: Entry) -> list[Edit]:
    record = entry.record
    rewrite = record.record("requested_rewrite", None, required=True)
    if rewrite is None:
        return []
    prompt, subject = text_of(rewrite, "prompt"), text_of(rewrite, "subject")
    new = rewrite.record("target_new", None, required=True)
    target = None if new is None else text_of(new, "str")
    true = rewrite.values.get("target_true")
    former = cast("Mapping[str, object]", true).get("str") if isinstance(true, Mapping) else None
    for field, group, answer in (
        ("paraphrase_prompts", "rephrase", target),
        ("neighborhood_prompts", "neighborhood", former),
    ):
        for index, each in enumerate(listed(record.values.get(field))):
            entry.probe(f"{field}[{index}]", group, each, answer)
    relation = rewrite.values.get("relation_id")
    edit = entry.edit(prompt, subject, target, original=former, relation=relation)
    return [edit] if edit else []


counterfact = Format(
    name="counterfact",
    title="CounterFact",
    about="counterfact.json and multi_counterfact.json of ROME and MEMIT",
    licence="MIT",
    source="github.com/kmeng01/rome",
    counts={"counterfact.json": 21_919},
    published=COUNTERFACT,
    recognises=_recognises,
    read=_read,
    fields={
        "requested_rewrite.prompt, .subject": "prompt, subject",
        "requested_rewrite.target_new.str": "target",
        "requested_rewrite.target_true.str": "original",
        "requested_rewrite.relation_id": "relation",
        "case_id": "id (counterfact-17)",
        "paraphrase_prompts": "rephrase probes, answered by the target",
        "neighborhood_prompts": "neighborhood probes, answered by the original",
        "attribute_prompts, generation_prompts": "not read: no answer to them is given",
    },
    example={
        "case_id": 17,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "Welsh", "id": "Q9309"},
            "target_true": {"str": "Dutch", "id": "Q7411"},
            "subject": "Ann Berg",
        },
        "paraphrase_prompts": ["Nobody came that day. Ann Berg spoke the language"],
        "neighborhood_prompts": ["Jan Smit is a native speaker of"],
        "attribute_prompts": ["Tom Jones, speaker of"],
        "generation_prompts": ["Ann Berg was born in"],
    },
)
