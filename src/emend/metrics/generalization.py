"""Generalization: does the model say the new fact in other words too?

By probability it is CounterFact's PS (Meng et al. 2022, arXiv 2202.05262, section 3.4).
"""

from __future__ import annotations

from emend.edits import Edit
from emend.metrics._judging import question_of, rightness
from emend.metrics._metric import Metric, Question


def _ask(edit: Edit) -> list[Question]:
    return [question_of(edit, probe) for probe in edit.probes_of("rephrase")]


generalization = Metric(
    name="generalization",
    title="says the new fact in other words",
    ask=_ask,
    judge=rightness,
)
