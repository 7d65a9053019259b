"""Many edits, many models: runs that end in records."""

from __future__ import annotations

from emend.bench._demo import Demo, DemoRun, demo
from emend.bench._sweep import Sweep, sweep
from emend.bench._sweep_records import Row

__all__ = ["Demo", "DemoRun", "Row", "Sweep", "demo", "sweep"]
