"""The scale of a vector, chosen by a grid on validation data as published.

Ilharco et al. 2023, arXiv 2212.04089: the scale is one number for the whole vector, from 0 to 1 in
steps of 0.05.

    negation    the largest scale whose control metric stays within its bound: at least 95% of its
                value at scale 0, or for a perplexity at most 0.5 above it
    addition    the scale with the best mean of the target metrics; with a bound of its own
                choosing (not published), the best of those whose control metric stays within it

Each point of the grid is a line of JSON, written when it is measured, so that a killed run goes on
from the next point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from emend import _identity
from emend._io import append_json_line, read_kept_lines
from emend._progress import progress
from emend._validate import choice_fault, refuse
from emend.arithmetic.dense import Vector, scaled
from emend.errors import InvalidInput, NumericalFailure
from emend.models import model_fingerprint
from emend.patches import WeightPatch

Goal = Literal["negation", "addition"]
GOALS = get_args(Goal)
SCALES = tuple(round(0.05 * step, 2) for step in range(21))
"""The published grid."""

SHARE = 0.95
"""Share of its value at scale 0 that a control metric where higher is better must keep."""

RISE = 0.5
"""The most by which a control metric where lower is better (a perplexity) may rise."""


@dataclass(frozen=True)
class Measure:
    """A metric of the model with the scaled vector in it.

    Attributes:
        name: Its name, in tables and in the log.
        of: Measures the model, which has the vector while it is called.
        lower_is_better: Whether it is a loss or a perplexity.
        identity: What else identifies it, such as the digest of its data; a point of the log is
            used again only if name and identity are the same.
    """

    name: str
    of: Callable[[Any], float]
    lower_is_better: bool = False
    identity: str = ""


@dataclass(frozen=True)
class Point:
    """One scale, measured.

    Attributes:
        scale: The scale.
        targets: The target metrics by name.
        control: The control metric; None where there is none.
    """

    scale: float
    targets: Mapping[str, float]
    control: float | None


@dataclass(frozen=True)
class Tuning:
    """A tuned scale, with the curve that it was chosen on.

    Attributes:
        goal: "negation" or "addition".
        scale: The chosen scale.
        points: Every point of the grid, by scale, ascending.
        control: Name of the control metric; "" where there is none.
        bound: The value that the control metric had to keep to; None where there is none.
        lower_is_better: Whether each metric, by name, is better when it is lower.
    """

    goal: Goal
    scale: float
    points: tuple[Point, ...]
    control: str
    bound: float | None
    lower_is_better: Mapping[str, bool]

    @property
    def chosen(self) -> Point:
        """The point of the chosen scale."""
        return next(point for point in self.points if point.scale == self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {**asdict(self), "points": [asdict(point) for point in self.points]}


def tune(
    model: nn.Module,
    vector: WeightPatch | Vector,
    *,
    goal: Goal,
    targets: Sequence[Measure],
    control: Measure | None = None,
    bound: float | None = None,
    scales: Sequence[float] = SCALES,
    log_path: str | Path | None = None,
) -> Tuning:
    """Choose the scale of a vector by a grid on validation data.

    Args:
        model: The base. Its weights are the same afterwards, bit for bit.
        vector: What is added, times the scale; to forget a task, its negated vector.
        goal: The published rule to choose by; see above.
        targets: The metrics to improve; "negation" only reports them.
        control: The metric to keep. "negation" needs one.
        bound: The value that the control metric must keep to, in place of the published bound for
            "negation"; "addition" has none unless it is given here.
        scales: The grid; 0 is always measured, since the bound refers to it.
        log_path: A file of JSON lines, to go on from.

    Raises:
        InvalidInput: An unknown goal, no metric, a grid without a positive scale, or names twice.
        NumericalFailure: A metric is not a number at every scale.
    """
    _check(goal, targets, control, scales)
    if bound is not None and control is None:
        raise InvalidInput(
            f"the bound is {bound} and there is no control metric, expected one that it bounds: "
            "give control"
        )
    grid = sorted({0.0, *map(float, scales)})
    measures = [*targets, *([control] if control else [])]
    known, key = _known(model, vector, measures, log_path)
    points: list[Point] = []
    for scale in progress(grid, "tuning the scale"):
        values = known.get(scale)
        if values is None:
            with scaled(model, vector, scale):
                values = {one.name: float(one.of(model)) for one in measures}
            if log_path is not None:
                append_json_line(Path(log_path), {"key": key, "scale": scale, "values": values})
        own = {one.name: values[one.name] for one in targets}
        points.append(Point(scale, own, values[control.name] if control else None))
    bound = _bound(points[0], control, bound) if goal == "negation" else bound
    lower = {one.name: one.lower_is_better for one in measures}
    kept = points if bound is None else _within(points, control, bound)
    chosen = _best(kept, lower) if goal == "addition" else kept[-1]
    name = control.name if control else ""
    return Tuning(goal, chosen.scale, tuple(points), name, bound, lower)


def _check(
    goal: str, targets: Sequence[Measure], control: Measure | None, scales: Sequence[float]
) -> None:
    refuse("goal", choice_fault(goal, GOALS))
    if goal == "addition" and not targets:
        raise InvalidInput("addition has no target metric, expected at least one: give targets")
    if goal == "negation" and control is None:
        raise InvalidInput(
            "negation has no control metric, expected one that bounds the scale: give control"
        )
    names = [one.name for one in (*targets, *([control] if control else ()))]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"two metrics are named {twice}, expected different names: rename one")
    if not any(scale > 0 for scale in scales) or not all(map(math.isfinite, scales)):
        raise InvalidInput(
            f"the scales are {list(scales)}, expected finite numbers, one of them positive: add one"
        )


def _known(
    model: nn.Module,
    vector: WeightPatch | Vector,
    measures: Sequence[Measure],
    log_path: str | Path | None,
) -> tuple[dict[float, dict[str, float]], str]:
    """Return the values of each scale that the log already has for these inputs, and their key."""
    if log_path is None:
        return {}, ""
    key = _identity.key(
        "scale tuning",
        model=model_fingerprint(model),
        vector=_content(vector),
        measures=[[one.name, one.identity] for one in measures],
    )
    lines = [line for line in read_kept_lines(Path(log_path)) if line.get("key") == key]
    return {line["scale"]: line["values"] for line in lines}, key


def _content(vector: WeightPatch | Vector) -> Any:
    if isinstance(vector, Vector):
        return vector.digest
    return {name: [*factor.matrices()] for name, factor in vector.factors.items()}


def _bound(at_zero: Point, control: Measure | None, given: float | None) -> float | None:
    if control is None or given is not None or at_zero.control is None:
        return given
    return at_zero.control + RISE if control.lower_is_better else at_zero.control * SHARE


def _within(points: Sequence[Point], control: Measure | None, bound: float) -> list[Point]:
    """Return the points within the bound, by scale; scale 0 where no other is."""
    assert control is not None

    def within(value: float) -> bool:
        return value <= bound if control.lower_is_better else value >= bound

    kept = [one for one in points if one.control is not None and within(one.control)]
    return kept or [points[0]]


def _best(points: Sequence[Point], lower: Mapping[str, bool]) -> Point:
    """Return the best mean of the targets: of shares, or of log-perplexities, negated."""

    def mean(point: Point) -> float:
        values = [
            -math.log(value) if lower[name] and value > 0 else value
            for name, value in point.targets.items()
        ]
        return sum(values) / len(values)

    usable = [one for one in points if math.isfinite(mean(one))]
    if not usable:
        raise NumericalFailure(
            "no scale has target metrics that are finite numbers, expected some: check the vector"
        )
    return max(usable, key=mean)
