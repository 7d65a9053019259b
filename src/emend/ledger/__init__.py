"""Edits kept under version control in one SQLite file. Loads no torch."""

from __future__ import annotations

from emend.errors import Conflict
from emend.ledger._records import LIVE, STATUSES, Build, Entry, Event, Measurement, Solved
from emend.ledger.ledger import Ledger

__all__ = [
    "LIVE",
    "STATUSES",
    "Build",
    "Conflict",
    "Entry",
    "Event",
    "Ledger",
    "Measurement",
    "Solved",
]
