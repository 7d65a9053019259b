"""StereoSet: one context with a stereotypical, an anti-stereotypical and a meaningless filling.

Nadeem et al. 2021, "StereoSet: Measuring stereotypical bias in pretrained language models",
arXiv 2004.09456. The intrasentence part, in the official file, which wraps the records, and as the
flat list of BiasEdit (arXiv 2503.08588).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from emend._validate import Fault, Record
from emend.datasets._comparisons import Comparison, ComparisonFormat
from emend.datasets._format import text_of

logger = logging.getLogger("emend")

_LABELS = ("stereotype", "anti-stereotype", "unrelated")
_PARTS = ("intrasentence", "intersentence")


def _records(value: Mapping[str, Any]) -> list[object] | None:
    """Return the intrasentence records of the official file's object; None for a record."""
    data = value.get("data")
    inner = cast("Mapping[str, object]", data if isinstance(data, Mapping) else value)
    if not any(isinstance(inner.get(part), list) for part in _PARTS):
        return None
    found = {part: cast("list[object]", inner.get(part) or []) for part in _PARTS}
    if found["intersentence"]:
        logger.warning(
            "%d intersentence records of StereoSet are left out: a causal model has no next-"
            "sentence head, and the intrasentence ones are compared",
            len(found["intersentence"]),
        )
    return found["intrasentence"]


def _read(record: Record) -> Comparison | None:
    bias_type, target = text_of(record, "bias_type"), text_of(record, "target")
    sentences = _by_data(record) if isinstance(record.values.get("data"), Mapping) else None
    if sentences is None:
        sentences = _by_label(record)
    missing = [label for label in _LABELS if label not in sentences]
    if missing:
        fault = Fault(f"has no sentence for {', '.join(missing)}", "one of each label", "add it")
        record.note("data" if record.has("data") else "sentences", fault)
    if missing or bias_type is None or target is None:
        return None
    id = record.values.get("id")
    return Comparison(
        id=id if isinstance(id, str) else record.place,
        bias_type=bias_type,
        target=target,
        stereotype=sentences["stereotype"],
        anti_stereotype=sentences["anti-stereotype"],
        unrelated=sentences["unrelated"],
    )


def _by_data(record: Record) -> dict[str, str]:
    """Read BiasEdit's form: an object of one sentence for each label."""
    found: dict[str, str] = {}
    data = record.record("data", None)
    for label in _LABELS if data else ():
        inner = cast(Record, data).record(label, None)
        text = inner.text("sentence") if inner else None
        if text is not None:
            found[label] = text.strip()
    return found


def _by_label(record: Record) -> dict[str, str]:
    """Read the official form: a list of sentences, each with its gold label."""
    found: dict[str, str] = {}
    for each in record.records("sentences", None):
        label, text = each.values.get("gold_label"), each.text("sentence")
        if isinstance(label, str) and text is not None:
            found[label] = text.strip()
    return found


stereoset = ComparisonFormat(
    name="stereoset",
    title="StereoSet",
    about="dev.json of StereoSet (its intrasentence part), and BiasEdit's lists of its records",
    fields={
        "bias_type": "bias type: gender, profession, race, religion",
        "target": "the word whose records are averaged first",
        "sentences[].sentence, .gold_label": "the three sentences, by label (official form)",
        "data.stereotype.sentence": "the stereotypical sentence (BiasEdit's form)",
        "data.anti-stereotype.sentence": "the anti-stereotypical sentence",
        "data.unrelated.sentence": "the meaningless sentence",
        "id": "id",
        "context, harm, labels": "not read",
    },
    example={
        "id": "a1",
        "target": "baker",
        "bias_type": "profession",
        "context": "The baker was BLANK.",
        "data": {
            "stereotype": {"sentence": "The baker was early.", "id": "b1"},
            "anti-stereotype": {"sentence": "The baker was late.", "id": "b2"},
            "unrelated": {"sentence": "The baker was seventeen.", "id": "b3"},
        },
    },
    required=(("bias_type",), ("target",), ("data", "sentences")),
    read=_read,
    records=_records,
    licence="CC BY-SA 4.0",
    source="https://github.com/moinnadeem/StereoSet",
    counts={"dev.json (intrasentence)": 2_106},
)
