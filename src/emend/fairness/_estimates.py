"""Estimates with confidence intervals: a bootstrap over records, the same for every measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Summarise = Callable[[Numbers], dict[str, Numbers]]
"""Weights of the N records, (R, N), to each measure in the R resamples, (R,)."""

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A measure with its 95% interval (percentiles of a bootstrap over records).

    Attributes:
        value: The measure on all records.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return {"value": self.value, "low": self.low, "high": self.high}


def estimates(count: int, before: Summarise, after: Summarise | None = None) -> Compared:
    """Estimate measures of `count` records, and their change if they were measured twice.

    Both measurements are resampled alike, so that the interval of the change is a paired one.

    Args:
        count: Number of records.
        before: Returns the measures, given the weights of the records.
        after: The same after a change of the model.
    """
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weights = np.vstack([np.ones(count), drawn]).astype(np.float64)
    first = before(weights)
    if after is None:
        return Compared(_intervals(first), None, None)
    second = after(weights)
    change = {name: second[name] - first[name] for name in first}
    return Compared(_intervals(first), _intervals(second), _intervals(change))


@dataclass(frozen=True)
class Compared:
    """Measures before a change of the model, after it, and their difference.

    Attributes:
        before: Each measure of the model as it is.
        after: The same with the patch; None if there is none.
        change: After minus before.
    """

    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate] | None
    change: Mapping[str, Estimate] | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        parts = {"before": self.before, "after": self.after, "change": self.change}
        return {
            name: part and {measure: one.to_dict() for measure, one in part.items()}
            for name, part in parts.items()
        }


def _intervals(found: Mapping[str, Numbers]) -> dict[str, Estimate]:
    """Return each measure's value (its first number) and the percentiles of its resamples."""
    edge = 100 * (1 - LEVEL) / 2
    result: dict[str, Estimate] = {}
    for name, numbers in found.items():
        resampled = numbers[1:][np.isfinite(numbers[1:])]
        ends = np.percentile(resampled, [edge, 100 - edge]) if len(resampled) else [np.nan] * 2
        low, high = (float(cast(float, end)) for end in ends)
        result[name] = Estimate(float(numbers[0]), low, high)
    return result
