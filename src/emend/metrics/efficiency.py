"""Efficiency: what did the edits cost?

Taken from the timing that the patch carries. What is done once per model whatever the edits
(key covariances, context templates) is given apart from what each edit takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emend.edits import Edit
from emend.metrics._metric import Answer, Metric, Outcomes, Question, Record


def _ask(edit: Edit) -> list[Question]:
    return []


def _judge(question: Question, before: Answer, after: Answer) -> Outcomes:
    return {}


def _summarize(records: Sequence[Record], timing: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds_per_edit": timing.get("per_edit"),
        "precompute_seconds": timing.get("precompute"),
        "peak_memory_bytes": timing.get("peak_memory_bytes"),
        "n": timing.get("edits"),
    }


efficiency = Metric(
    name="efficiency",
    title="seconds and memory per edit",
    ask=_ask,
    judge=_judge,
    summarize=_summarize,
    unit="seconds",
)
