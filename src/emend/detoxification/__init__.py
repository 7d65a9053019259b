"""Make a model stop writing what is rude or unsafe, and measure what that cost.

    cases = read_cases("examples/remarks.safeedit.json")
    result = detoxify(model, tokenizer, cases, classifier, method="dinm")
    result.before.safe, result.after.safe           # shares of safe answers, by test

Imports no torch: what needs it is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend.datasets.safeedit import TESTS, SafetyCase, read_cases
from emend.detoxification.control import Control, read_facts, read_paragraphs
from emend.detoxification.lab_cases import (
    lab_cases,
    lab_classifier,
    lab_control,
    lab_remarks,
)

if TYPE_CHECKING:
    from emend.detoxification.detoxifying import METHODS as METHODS
    from emend.detoxification.detoxifying import Detoxification as Detoxification
    from emend.detoxification.detoxifying import detoxify as detoxify
    from emend.detoxification.measuring import Safety as Safety
    from emend.detoxification.measuring import measure as measure
    from emend.detoxification.negation import negate as negate

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "METHODS",
    "TESTS",
    "Control",
    "Detoxification",
    "Safety",
    "SafetyCase",
    "detoxify",
    "lab_cases",
    "lab_classifier",
    "lab_control",
    "lab_remarks",
    "measure",
    "negate",
    "read_cases",
    "read_facts",
    "read_paragraphs",
]
