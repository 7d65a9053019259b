"""Many edits, many models: runs that end in records."""

from __future__ import annotations

from emend.bench._demo import Demo, DemoRun, demo
from emend.bench._real_demo import RealDemo, real_demo
from emend.bench._sweep import Sweep, sweep
from emend.bench._sweep_records import Row

__all__ = ["Demo", "DemoRun", "RealDemo", "Row", "Sweep", "demo", "real_demo", "sweep"]
