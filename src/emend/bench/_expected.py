"""Published numbers that a recipe names, to be shown next to those that are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend._validate import Fault, Record
from emend.errors import BrokenFile

FIELDS = ("dataset", "schedule", "method", "source", "recalled", "values")


@dataclass(frozen=True)
class Expected:
    """Numbers that a paper states of one method, dataset and schedule.

    Attributes:
        dataset: The plan's name of the dataset.
        schedule: Its text.
        method: With settings, as in the plan.
        source: Where the numbers are from.
        recalled: Whether they were written down from memory and not read in the source: a target,
            and no ground truth.
        values: By the score's name: shares from 0 to 1, or in the score's own unit.
    """

    dataset: str
    schedule: str
    method: str
    source: str
    recalled: bool
    values: Mapping[str, float]

    @classmethod
    def of(cls, record: Record) -> Expected | None:
        """Read an entry of a plan; None, and a note, where it is faulty."""
        texts = [record.text(name) for name in ("dataset", "schedule", "method", "source")]
        recalled = record.flag("recalled", False)
        values = record.mapping("values")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                record.note("values", Fault(f"has {name} that is no number", "a number", "fix it"))
        if None in texts:
            return None
        numbers = {n: float(v) for n, v in values.items() if isinstance(v, (int, float))}
        dataset, schedule, method, source = (str(text) for text in texts)
        return cls(dataset, schedule, method, source, recalled, numbers)


def read_expected(path: Path) -> list[Expected]:
    """Read what the latest run's plan expects; nothing where there is no such file.

    Raises:
        BrokenFile: It is no plan.
    """
    if not path.is_file():
        return []
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        return [Expected(**one) for one in found.get("expected", ())]
    except (ValueError, TypeError, AttributeError):
        raise BrokenFile(f"{path} is no plan of a benchmark: delete it, and run again") from None
