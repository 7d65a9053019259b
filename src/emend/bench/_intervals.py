"""Bootstrap intervals of 95% over edits or cases."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DRAWS = 1000
"""Bootstrap samples of edits or cases."""


@dataclass(frozen=True)
class Interval:
    """A mean over edits, and the bootstrap interval of 95%."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Parts:
    """Values of each edit of which a score is made.

    Attributes:
        values: Value by edit: of one score, or of each that a harmonic mean is of. An edit
            without a probe of a part has no value there.
    """

    values: Sequence[Mapping[str, float]]

    @property
    def mean_interval(self) -> Interval | None:
        """The harmonic mean of the parts' means, with its interval; None where a part is empty."""
        return self._interval(lambda drawn: _harmonic(self.values, drawn))

    def difference(self, other: Parts) -> Interval | None:
        """Return how much higher it is than another's, over the edits that both have."""
        pairs = list(zip(self.values, other.values, strict=False))
        mine = [{edit: a[edit] for edit in a if edit in b} for a, b in pairs]
        theirs = [{edit: b[edit] for edit in a if edit in b} for a, b in pairs]
        if len(mine) < len(self.values):
            return None

        def value(drawn: Sequence[str]) -> float | None:
            ours, others = _harmonic(mine, drawn), _harmonic(theirs, drawn)
            return None if ours is None or others is None else ours - others

        return Parts(mine)._interval(value)

    def _interval(self, value: Callable[[Sequence[str]], float | None]) -> Interval | None:
        edits = list(dict.fromkeys(edit for part in self.values for edit in part))
        if not edits or not all(self.values):
            return None
        return _bootstrap(edits, value)


def interval(values: Sequence[float]) -> Interval | None:
    """Return the mean of values with its interval; None without values."""
    return Parts([{str(number): value for number, value in enumerate(values)}]).mean_interval


def interval_of_cases(
    records: Sequence[Mapping[str, Any]],
    scores: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float | None]],
) -> dict[str, Interval | None]:
    """Return the interval of each score of records, of which each is a case; see `CaseMeasure`."""
    draws = [scores(drawn) for drawn in _draws(records)]
    return {
        name: None if mean is None else _interval_of(mean, [draw.get(name) for draw in draws])
        for name, mean in scores(records).items()
    }


def _harmonic(parts: Sequence[Mapping[str, float]], edits: Sequence[str]) -> float | None:
    """Return the harmonic mean of the parts' means over edits; None where one has no value."""
    found = [[part[edit] for edit in edits if edit in part] for part in parts]
    if not all(found):
        return None
    means = [statistics.fmean(values) for values in found]
    # A mean alone may be negative: a difference of probabilities.
    return means[0] if len(means) == 1 else statistics.harmonic_mean(means)


def _bootstrap(
    items: Sequence[Any], value: Callable[[Sequence[Any]], float | None]
) -> Interval | None:
    mean = value(items)
    return None if mean is None else _interval_of(mean, [value(drawn) for drawn in _draws(items)])


def _draws(items: Sequence[Any]) -> list[list[Any]]:
    draw = random.Random(0)
    return [draw.choices(items, k=len(items)) for _ in range(DRAWS)]


def _interval_of(mean: float, drawn: Sequence[float | None]) -> Interval:
    """Return a value with the percentiles of those of samples; a sample may have none."""
    values = sorted(value for value in drawn if value is not None)
    last = len(values) - 1
    return Interval(mean, values[round(0.025 * last)], values[round(0.975 * last)])
