"""Facts under version control: the store, builds, what follows from an edit, the release check.

The store is one SQLite file and loads no torch; what makes patches is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend.errors import Conflict
from emend.ledger.store import (
    LIVE,
    STATUSES,
    Build,
    Entry,
    Event,
    Ledger,
    Measurement,
    Solved,
)

if TYPE_CHECKING:
    from emend.ledger.building import Built as Built
    from emend.ledger.building import build as build
    from emend.ledger.entailment import Derived as Derived
    from emend.ledger.entailment import Entailment as Entailment
    from emend.ledger.entailment import Skipped as Skipped
    from emend.ledger.entailment import entail as entail
    from emend.ledger.expansion import Expansion as Expansion
    from emend.ledger.expansion import asker as asker
    from emend.ledger.expansion import expand as expand
    from emend.ledger.junit import junit_xml as junit_xml
    from emend.ledger.release_check import Check as Check
    from emend.ledger.release_check import ReleaseCheck as ReleaseCheck
    from emend.ledger.release_check import check as check
    from emend.ledger.rules import Rules as Rules
    from emend.ledger.rules import lab_rules as lab_rules
    from emend.ledger.rules import parse_rules as parse_rules
    from emend.ledger.rules import read_rules as read_rules
    from emend.ledger.solved import Similar as Similar
    from emend.ledger.solved import similar as similar
    from emend.ledger.suite import Suite as Suite
    from emend.ledger.suite import parse_suite as parse_suite
    from emend.ledger.suite import read_suite as read_suite

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "LIVE",
    "STATUSES",
    "Build",
    "Built",
    "Check",
    "Conflict",
    "Derived",
    "Entailment",
    "Entry",
    "Event",
    "Expansion",
    "Ledger",
    "Measurement",
    "ReleaseCheck",
    "Rules",
    "Similar",
    "Skipped",
    "Solved",
    "Suite",
    "asker",
    "build",
    "check",
    "entail",
    "expand",
    "junit_xml",
    "lab_rules",
    "parse_rules",
    "parse_suite",
    "read_rules",
    "read_suite",
    "similar",
]
