"""Portability: does what follows from the new fact follow?

Groups: another name of the subject, the relation turned round, one hop further (Yao et al. 2023,
arXiv 2305.13172; Cohen et al. 2023, arXiv 2307.12976). Mean of an edit's groups, then of edits.
"""

from __future__ import annotations

from emend.edits import Edit
from emend.metrics._judging import question_of, rightness
from emend.metrics._metric import Metric, Question


def _ask(edit: Edit) -> list[Question]:
    return [question_of(edit, probe) for probe in edit.probes_of("portability")]


portability = Metric(
    name="portability",
    title="what follows from the new fact follows",
    ask=_ask,
    judge=rightness,
    grouped=True,
)
