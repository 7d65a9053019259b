"""The store: edits, what was solved, builds and history in one SQLite file. Loads no torch."""

from __future__ import annotations

from emend.ledger.store._records import (
    LIVE,
    LONGEST_NOTE,
    STATUSES,
    Build,
    Entry,
    Event,
    Measurement,
    Solved,
)
from emend.ledger.store.ledger import Ledger

__all__ = [
    "LIVE",
    "LONGEST_NOTE",
    "STATUSES",
    "Build",
    "Entry",
    "Event",
    "Ledger",
    "Measurement",
    "Solved",
]
