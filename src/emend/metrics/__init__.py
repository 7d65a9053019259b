"""Measures: what an edit changed, and what it did not.

One file per measure, found by its name; `emend.evaluate` asks the model everything that they
want to know in one batched pass before and one after.
"""

from __future__ import annotations

from emend.metrics._asking import ask, registry
from emend.metrics._cost import Cost, cost_of
from emend.metrics._evaluate import evaluate, evaluate_each
from emend.metrics._judging import exact_match, same_answer
from emend.metrics._metric import Answer, Metric, Outcomes, Question, Record
from emend.metrics._multi_hop import HopReport, evaluate_multi_hop
from emend.metrics._report import Report
from emend.metrics._verify import verified, verify

__all__ = [
    "Answer",
    "Cost",
    "HopReport",
    "Metric",
    "Outcomes",
    "Question",
    "Record",
    "Report",
    "ask",
    "cost_of",
    "evaluate",
    "evaluate_each",
    "evaluate_multi_hop",
    "exact_match",
    "registry",
    "same_answer",
    "verified",
    "verify",
]
