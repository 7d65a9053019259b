"""Editing by what the model reads: demonstrations before a prompt, questions answered in steps."""

from __future__ import annotations

from emend.incontext.demonstrations import Demonstration, Pool, choose, pool_of
from emend.incontext.facts import FactLayout, fitted, statement
from emend.incontext.steps import Step, StepLayout, Trace
from emend.incontext.stepwise import Stepwise

__all__ = [
    "Demonstration",
    "FactLayout",
    "Pool",
    "Step",
    "StepLayout",
    "Stepwise",
    "Trace",
    "choose",
    "fitted",
    "pool_of",
    "statement",
]
