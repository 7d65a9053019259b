"""Many edits, many models: runs that end in records."""

from __future__ import annotations

from emend.bench._demo import Demo, DemoRun, demo

__all__ = ["Demo", "DemoRun", "demo"]
