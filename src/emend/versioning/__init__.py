"""What is done with a ledger and a model: patches built, checked, and carried to what follows."""

from __future__ import annotations

from emend.versioning._suite import Suite, parse_suite, read_suite
from emend.versioning.build import Built, build
from emend.versioning.closure import Closure, Derived, Skipped, closure
from emend.versioning.expand import Expansion, asker, expand
from emend.versioning.gate import Check, Gate, check
from emend.versioning.junit import junit_xml
from emend.versioning.rules import Rules, lab_rules, parse_rules, read_rules
from emend.versioning.similar import Similar, similar

__all__ = [
    "Built",
    "Check",
    "Closure",
    "Derived",
    "Expansion",
    "Gate",
    "Rules",
    "Similar",
    "Skipped",
    "Suite",
    "asker",
    "build",
    "check",
    "closure",
    "expand",
    "junit_xml",
    "lab_rules",
    "parse_rules",
    "parse_suite",
    "read_rules",
    "read_suite",
    "similar",
]
