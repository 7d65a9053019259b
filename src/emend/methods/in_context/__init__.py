"""Editing by what the model reads: demonstrations before a prompt, questions answered in steps."""

from __future__ import annotations

from emend.methods.in_context._demonstrations import Demonstration, Pool, choose, pool_of
from emend.methods.in_context._facts import FactLayout, fitted, statement
from emend.methods.in_context._steps import Step, StepLayout, Trace
from emend.methods.in_context._stepwise import Stepwise

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
