"""CHED: edits that are asked for after sentences about the subject, the old and the new object.

Park et al. 2025, "Context-Robust Knowledge Editing for Language Models", arXiv 2505.23026. Each
sentence is put before the edit's own prompt, as a probe of the group ``after_context``: it must not
change the answer. The published measure asks whether a sampled text of 50 tokens contains the new
answer and not the old one; emend's measures judge the first words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emend.datasets._format import Entry, Format, Score, listed, template_of
from emend.edits import Edit

CONTEXTS = (
    *("sbj_hop_sentence", "obj_old_hop_sentence", "obj_new_hop_sentence"),
    *("sbj_sentence", "obj_old_sentence", "obj_new_sentence"),
)
"""Fields of sentences: with a word one hop from subject, old and new object, and with these."""


def _recognises(record: Mapping[str, Any]) -> bool:
    return "edited_knowledge" in record and "fact_knowledge" in record


def _read(entry: Entry) -> list[Edit]:
    prompt, subject = entry.text("prompt"), entry.text("subject")
    target, former = entry.text("edited_knowledge"), entry.text("fact_knowledge")
    if prompt is None or subject is None or target is None or former is None:
        return []
    record = entry.record.values
    found = template_of(prompt, subject)
    text = prompt if found is None else found[0].replace("{}", found[1])
    if record.get("rephrased_prompt") is not None:
        entry.probe("rephrased_prompt", "rephrase", record["rephrased_prompt"], target)
    if record.get("locality_prompt") is not None:
        true = record.get("locality_ground_truth")
        entry.probe("locality_prompt", "neighborhood", record["locality_prompt"], true)
    for field in CONTEXTS:
        for index, sentence in enumerate(listed(record.get(field))):
            before = sentence.strip() if isinstance(sentence, str) else ""
            entry.probe(
                f"{field}[{index}]", "after_context", f"{before} {text}" if before else None, target
            )
    edit = entry.edit(prompt, subject, target, original=former, relation=record.get("relation_id"))
    return [edit] if edit else []


ched = Format(
    name="ched",
    title="CHED",
    about="the Contextual Hop Editing Dataset: edits asked for after sentences that distract",
    licence="not stated",
    source="github.com/holi-lab/CoRE",
    published={
        "efficacy": Score("reliability", "exact_match"),
        "generalization": Score("generalization", "exact_match", "rephrase"),
        "context": Score("generalization", "exact_match", "after_context"),
        "specificity": Score("locality", "exact_match", "neighborhood"),
    },
    recognises=_recognises,
    read=_read,
    fields={
        "prompt, subject": "prompt, subject",
        "edited_knowledge": "target",
        "fact_knowledge": "original",
        "relation_id": "relation",
        "case_id": "id (ched-17)",
        "rephrased_prompt": "a rephrase probe, answered by the target",
        "locality_prompt, locality_ground_truth": "a neighborhood probe",
        "sbj_, obj_old_, obj_new_hop_sentence": "after_context probes: the sentence, then the "
        "prompt, answered by the target",
        "sbj_, obj_old_, obj_new_sentence": "the same",
        "..._hop_word": "not read: the sentences hold these words",
    },
    example={
        "case_id": "17",
        "counterfact_id": "17",
        "prompt": "The mother tongue of {} is",
        "subject": "Ann Berg",
        "fact_knowledge": "Dutch",
        "edited_knowledge": "Welsh",
        "relation_id": "P103",
        "rephrased_prompt": "Ann Berg spoke the language",
        "locality_prompt": "Jan Smit is a native speaker of",
        "locality_ground_truth": "Dutch",
        "sbj_hop_word": ["Utrecht"],
        "sbj_hop_sentence": ["The canals of Utrecht freeze in some winters."],
        "obj_old_hop_sentence": ["Many tulips are sold in Amsterdam."],
        "obj_new_hop_sentence": ["Cardiff has a castle in its centre."],
        "sbj_sentence": ["Ann Berg wrote three books about rivers."],
    },
)
