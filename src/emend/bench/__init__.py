"""Many edits, many models: runs that end in records."""

from __future__ import annotations

from emend.bench._demo import Demo, DemoRun, demo
from emend.bench._grid import COLUMNS, Grid, Variant, mean, measure_columns
from emend.bench._real_demo import RealDemo, real_demo
from emend.bench._sweep import Row, Sweep, sweep

__all__ = [
    "COLUMNS",
    "Demo",
    "DemoRun",
    "Grid",
    "RealDemo",
    "Row",
    "Sweep",
    "Variant",
    "demo",
    "mean",
    "measure_columns",
    "real_demo",
    "sweep",
]
