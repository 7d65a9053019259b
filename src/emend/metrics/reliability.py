"""Reliability: does the model say the new fact when asked in the edit's own words?

Also called efficacy or edit success. By probability it is CounterFact's ES: the new target is
more probable than the original one (Meng et al. 2022, arXiv 2202.05262, section 3.4).
"""

from __future__ import annotations

from emend.edits import Edit
from emend.metrics._judging import rightness
from emend.metrics._metric import Metric, Question


def _ask(edit: Edit) -> list[Question]:
    return [Question(edit.text, (edit.target,), rival=edit.original)]


reliability = Metric(
    name="reliability",
    title="says the new fact in the edit's own words",
    ask=_ask,
    judge=rightness,
)
