"""What is done with a ledger and a model: patches built, checked, and carried to what follows."""

from __future__ import annotations

from emend.versioning.build import Built, build
from emend.versioning.closure import Closure, Derived, Skipped, closure
from emend.versioning.expand import Expansion, asker, expand
from emend.versioning.rules import Rules, lab_rules, parse_rules, read_rules
from emend.versioning.similar import Similar, similar

__all__ = [
    "Built",
    "Closure",
    "Derived",
    "Expansion",
    "Rules",
    "Similar",
    "Skipped",
    "asker",
    "build",
    "closure",
    "expand",
    "lab_rules",
    "parse_rules",
    "read_rules",
    "similar",
]
