"""Many edits, many models: runs that end in records."""

from __future__ import annotations

from emend.bench._demo import Demo, DemoRun, demo
from emend.bench._expected import Expected
from emend.bench._further import VERDICTS, judge_of
from emend.bench._grid import COLUMNS, Grid, Variant, mean, measure_columns
from emend.bench._ray import RayEngine
from emend.bench._real_demo import RealDemo, real_demo
from emend.bench._samples import log_samples
from emend.bench._shards import RayShards
from emend.bench._sweep import Row, Sweep, sweep
from emend.bench._tasks import Tasks, tasks_of
from emend.bench._units import Schedule, Source, Unit
from emend.bench.leaderboard import Board, Interval, Point
from emend.bench.plan import Plan
from emend.bench.running import Runner

__all__ = [
    "COLUMNS",
    "VERDICTS",
    "Board",
    "Demo",
    "DemoRun",
    "Expected",
    "Grid",
    "Interval",
    "Plan",
    "Point",
    "RayEngine",
    "RayShards",
    "RealDemo",
    "Row",
    "Runner",
    "Schedule",
    "Source",
    "Sweep",
    "Tasks",
    "Unit",
    "Variant",
    "demo",
    "judge_of",
    "log_samples",
    "mean",
    "measure_columns",
    "real_demo",
    "sweep",
    "tasks_of",
]
