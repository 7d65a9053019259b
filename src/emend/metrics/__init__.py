"""Measures: what an edit changed, and what it did not.

One file per measure, found by its name; `emend.evaluate` asks the model everything that they
want to know in one batched pass before and one after.
"""

from __future__ import annotations

from emend.metrics._asking import ask, registry
from emend.metrics._cases import CaseMeasure, case_measure
from emend.metrics._classifier import (
    Classifier,
    PretrainedClassifier,
    label_index,
    label_shares,
    load_classifier,
    read_labelled,
)
from emend.metrics._cost import Cost, cost_of
from emend.metrics._drift import subject_drift
from emend.metrics._evaluate import evaluate, evaluate_each
from emend.metrics._judging import exact_match, same_answer
from emend.metrics._metric import Answer, Metric, Outcomes, Question, Record
from emend.metrics._multi_hop import HopReport, evaluate_multi_hop
from emend.metrics._published import published_scores, records_of_score
from emend.metrics._realistic import (
    Judge,
    RealisticReport,
    evaluate_realistic,
    realistic_scores,
)
from emend.metrics._report import Report
from emend.metrics._ripple import RippleReport, evaluate_ripple
from emend.metrics._summary import values_by_edit
from emend.metrics._trained_classifier import TrainedClassifier, train_classifier
from emend.metrics._verify import verified, verify

__all__ = [
    "Answer",
    "CaseMeasure",
    "Classifier",
    "Cost",
    "HopReport",
    "Judge",
    "Metric",
    "Outcomes",
    "PretrainedClassifier",
    "Question",
    "RealisticReport",
    "Record",
    "Report",
    "RippleReport",
    "TrainedClassifier",
    "ask",
    "case_measure",
    "cost_of",
    "evaluate",
    "evaluate_each",
    "evaluate_multi_hop",
    "evaluate_realistic",
    "evaluate_ripple",
    "exact_match",
    "label_index",
    "label_shares",
    "load_classifier",
    "published_scores",
    "read_labelled",
    "realistic_scores",
    "records_of_score",
    "registry",
    "same_answer",
    "subject_drift",
    "train_classifier",
    "values_by_edit",
    "verified",
    "verify",
]
