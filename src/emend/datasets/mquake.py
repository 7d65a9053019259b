"""MQuAKE: multi-hop questions whose answers follow from counterfactual or temporal edits.

Zhong et al. 2023, "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
Questions", arXiv 2305.14795. Reads its files (MQuAKE-CF, -CF-3k, -CF-3k-v2, -T) and others with the
same records: `requested_rewrite`, `questions`, `new_answer`, `new_single_hops`. Each rewrite is an
edit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emend._validate import Fault, Record
from emend.datasets._format import Entry, Format
from emend.edits import Edit, MultiHop, Probe, SingleHop
from emend.errors import EmendError, first_line

QUESTION = "Question: {} Answer:"


def _multi_hop(record: Record) -> MultiHop | None:
    """Return the instance of a record; None, and a note, if it is none."""
    try:
        return _instance(record.values)
    except (EmendError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        fault = Fault(f"cannot be read ({reason})", "a record of MQuAKE", "fetch it again")
        record.problems.note(fault, record.place or "the record", record.line)
        return None


def _recognises(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("requested_rewrite"), list)


def _read(entry: Entry) -> list[Edit]:
    instance = _multi_hop(entry.record)
    return list(instance.edits) if instance else []


def _instance(record: Any) -> MultiHop:
    edits = tuple(_edit(one) for one in record["requested_rewrite"])
    changed = {edit.text for edit in edits}
    return MultiHop(
        id=f"mquake-{record['case_id']}",
        edits=edits,
        questions=tuple(record["questions"]),
        answers=_answers(record, "new_answer"),
        old_answers=_answers(record, "answer"),
        hops=tuple(
            SingleHop(
                one["question"], one["cloze"], _answers(one, "answer"), one["cloze"] in changed
            )
            for one in record["new_single_hops"]
        ),
    )


def _edit(record: Mapping[str, Any]) -> Edit:
    target, question = record["target_new"]["str"], record.get("question")
    original = record.get("target_true") or {}
    probe = Probe("rephrase", QUESTION.format(question), (target,)) if question else None
    return Edit(
        record["prompt"],
        record["subject"].strip(),
        target,
        original=original.get("str"),
        relation=record.get("relation_id"),
        probes=(probe,) if probe else (),
    )


def _answers(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the answer, its longer form (in MQuAKE-T) and its aliases; each once, none empty."""
    extended = record.get(f"{name}_extended", ())
    listed = [record[name], *record.get(f"{name}_alias", ()), *extended]
    return tuple(dict.fromkeys(text for text in listed if text.strip()))


mquake = Format(
    name="mquake",
    title="MQuAKE",
    about="MQuAKE-CF, MQuAKE-CF-3k, MQuAKE-CF-3k-v2, MQuAKE-T; for `emend multihop` too",
    licence="MIT",
    source="github.com/princeton-nlp/MQuAKE",
    counts={
        "MQuAKE-CF.json": 9_218,
        "MQuAKE-CF-3k-v2.json": 3_000,
        "MQuAKE-T.json": 1_825,
        "MQuAKE-hard.json": 429,
    },
    cases="multi_hop",
    recognises=_recognises,
    read=_read,
    fields={
        "requested_rewrite[].prompt, .subject": "prompt, subject: each rewrite is an edit",
        "requested_rewrite[].target_new.str": "target",
        "requested_rewrite[].target_true.str": "original",
        "requested_rewrite[].relation_id": "relation",
        "requested_rewrite[].question": "a rephrase probe, 'Question: ... Answer:'",
        "questions, new_answer, new_single_hops": "the multi-hop questions of `emend multihop`",
    },
    example={
        "case_id": 3,
        "requested_rewrite": [
            {
                "prompt": "{} is associated with the sport of",
                "relation_id": "P641",
                "target_new": {"str": "judo", "id": "Q11420"},
                "target_true": {"str": "rugby", "id": "Q5378"},
                "subject": "Nor FC",
                "question": "Which sport is Nor FC associated with?",
            }
        ],
        "questions": ["In which country was the sport of Nor FC created?"],
        "answer": "United Kingdom",
        "answer_alias": [],
        "new_answer": "Japan",
        "new_answer_alias": ["Nippon"],
        "single_hops": [],
        "new_single_hops": [
            {
                "question": "Which sport is Nor FC associated with?",
                "cloze": "Nor FC is associated with the sport of",
                "answer": "judo",
                "answer_alias": [],
            },
            {
                "question": "In which country was judo created?",
                "cloze": "Judo was created in the country of",
                "answer": "Japan",
                "answer_alias": ["Nippon"],
            },
        ],
    },
    multi_hop=_multi_hop,
)
