"""What a results folder holds, joined by model, method, dataset and schedule, with intervals."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emend import _identity, datasets, metrics
from emend.bench._expected import Expected, read_expected
from emend.bench._intervals import Interval, Parts, interval, interval_of_cases
from emend.bench.running import PLAN, UNITS, read_result
from emend.datasets import HarmonicMean, PublishedScore, Score
from emend.errors import MissingFile
from emend.metrics import Report

COLUMNS: Mapping[str, tuple[str, str | None]] = {
    "reliability": ("reliability", None),
    "generalization": ("generalization", None),
    "portability": ("portability", None),
    "locality": ("locality", None),
    "neighborhood": ("locality", "neighborhood"),
}
"""Columns of a leaderboard: the measure, and its group."""

KINDS: Mapping[str, Sequence[str]] = {
    "neighbors": ("neighborhood",),
    "other facts": ("relation_specificity", "forgetfulness"),
}
"""Groups of made probes by what they are called in side effects."""

MOMENTS = ("before", "after")

Place = tuple[str, str, str, str]
"""Model, method, dataset and schedule."""


@dataclass(frozen=True)
class Point:
    """All units of one model, method, dataset and schedule.

    Attributes:
        model: See `bench.Unit`; so are method, dataset and schedule.
        method: With settings.
        dataset: Its name.
        schedule: Its text.
        results: Results of the units.
    """

    model: str
    method: str
    dataset: str
    schedule: str
    results: Sequence[Mapping[str, Any]]

    @property
    def place(self) -> Place:
        """What the point is known by."""
        return self.model, self.method, self.dataset, self.schedule

    @cached_property
    def report(self) -> Report:
        """The records of all units as one report."""
        good = [one for one in self.results if "records" in one]
        records = [record for one in good for record in one["records"]]
        nothing: Mapping[str, Any] = {"metrics": ["reliability"], "settings": {}}
        first = good[0] if good else nothing
        seconds = [one["timing"].get("per_edit") for one in good]
        known = [value for value in seconds if value is not None]
        timing = {"per_edit": statistics.mean(known)} if known else {}
        return Report(records, first["metrics"], first["settings"], timing)

    @property
    def errors(self) -> list[str]:
        """Messages of the units that could not be measured, each once."""
        return list(dict.fromkeys(one["error"] for one in self.results if "error" in one))

    @property
    def edits(self) -> int:
        """Number of edits that were measured."""
        return sum(one["unit"]["edits"] for one in self.results if "records" in one)

    @property
    def cases(self) -> int:
        """Number of cases that were measured; see `published`."""
        return sum(len(one["cases"]) for one in self.results if "cases" in one)

    @property
    def seconds(self) -> float | None:
        """Mean seconds an edit takes, by the clock."""
        return self.report.timing.get("per_edit")

    @property
    def cpu_seconds(self) -> float | None:
        """Mean CPU seconds an edit takes with its evaluation."""
        spent = [one["cpu_seconds"] for one in self.results if "records" in one]
        return sum(spent) / self.edits if self.edits else None

    @property
    def perplexity(self) -> float | None:
        """Mean relative change of perplexity; None where it was not measured."""
        found = [one["perplexity"] for one in self.results if one.get("perplexity")]
        return statistics.mean(p["after"] / p["before"] - 1 for p in found) if found else None

    @cached_property
    def tasks(self) -> dict[str, dict[str, float]]:
        """Values of lm-evaluation-harness before and after by task and metric, means of units."""
        units = [one["tasks"] for one in self.results if one.get("tasks")]
        return {
            name: {m: statistics.mean(unit[name][m] for unit in units) for m in MOMENTS}
            for name in (units[0] if units else ())
        }

    @cached_property
    def realistic(self) -> dict[str, dict[str, float | None]]:
        """Shares of realistic evaluation; see `metrics.RealisticReport.summary`."""
        records = [record for one in self.results for record in one.get("realistic", ())]
        return metrics.realistic_scores(records)

    @cached_property
    def drift(self) -> Interval | None:
        """Mean subject drift in nats a token; see `metrics.subject_drift`."""
        values = [value for one in self._effects for value in one["drift"].values()]
        return interval(values)

    @cached_property
    def changed(self) -> dict[str, tuple[int, int]]:
        """Probes made by emend whose answer changed, and how many were asked, by kind."""
        return {
            kind: (
                sum(one["changed"].get(group, 0) for one in self._effects for group in groups),
                sum(one["asked"].get(group, 0) for one in self._effects for group in groups),
            )
            for kind, groups in KINDS.items()
            if self._effects
        }

    @property
    def _effects(self) -> list[Mapping[str, Any]]:
        return [one["side_effects"] for one in self.results if one.get("side_effects")]

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """The mean of each column with its interval; None where it was not measured."""
        return {column: self.parts(column).mean_interval for column in COLUMNS}

    @cached_property
    def published(self) -> dict[str, dict[str, float | None]]:
        """The scores that the dataset was published with, by name; those not measured left out.

        Each has its value `after` the edits, and `before` them where the measure asks before.
        """
        forms = {one["unit"].get("form", "") for one in self.results} - {""}
        found: dict[str, dict[str, float | None]] = {}
        for form in sorted(forms):
            scores = datasets.format_of(form).published
            found |= metrics.published_scores(self.report.records, scores)
        for measure, records in sorted(self._cases.items()):
            values = metrics.case_measure(measure).scores(records)
            found |= {name: {"after": value} for name, value in values.items()}
        return {name: value for name, value in found.items() if value["after"] is not None}

    @property
    def scores(self) -> dict[str, PublishedScore]:
        """The dataset's own scores that are made of edits, as "own ES"."""
        forms = {one["unit"].get("form", "") for one in self.results} - {""}
        return {
            f"own {name}": score
            for form in sorted(forms)
            for name, score in datasets.format_of(form).published.items()
        }

    @cached_property
    def published_intervals(self) -> dict[str, Interval]:
        """The intervals of `published` after the edits, over edits or cases."""
        found = {
            name: one.mean_interval
            for name in self.published
            if (one := self.parts(f"own {name}")).values
        }
        for measure, records in sorted(self._cases.items()):
            found |= interval_of_cases(records, metrics.case_measure(measure).scores)
        return {name: one for name, one in found.items() if one is not None}

    @property
    def _cases(self) -> dict[str, list[Mapping[str, Any]]]:
        """Records of cases by their measure."""
        cases: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for one in self.results:
            if "cases" in one:
                cases[one["unit"]["measure"]] += one["cases"]
        return cases

    def parts(self, column: str) -> Parts:
        """Return the values after the edits of each edit.

        Args:
            column: Of `COLUMNS`, by the headline of its measure; or a name of `scores`.
        """
        score = self.scores.get(column)
        if column in COLUMNS:
            metric, group = COLUMNS[column]
            headline = self.report.summary.get(metric, {}).get("headline", "exact_match")
            score = Score(metric, headline, group)
        if isinstance(score, HarmonicMean):
            return Parts([self.by_edit(f"own {name}") for name in score.of])
        return Parts([] if score is None else [self._by_edit(score)])

    def by_edit(self, column: str) -> Mapping[str, float]:
        """Return the value after the edits of each edit; see `parts`, nothing where it has more."""
        values = self.parts(column).values
        return values[0] if len(values) == 1 else {}

    def _by_edit(self, score: Score) -> dict[str, float]:
        values = metrics.values_by_edit(
            metrics.records_of_score(self.report.records, score), score.protocol
        )
        return {edit: one["after"] for edit, one in values.items()}


@dataclass(frozen=True)
class Board:
    """The results of a folder.

    Attributes:
        points: One for each model, method, dataset and schedule.
        hash: Of the keys of all units, so that two boards of one run are known.
        expected: Published numbers that the plan names.
    """

    points: Sequence[Point]
    hash: str
    expected: Sequence[Expected] = ()

    @classmethod
    def read(cls, directory: str | Path, keys: Sequence[str] | None = None) -> Board:
        """Read a results folder.

        Args:
            directory: The folder.
            keys: Of the units that are taken; None for all.

        Raises:
            MissingFile: It holds no results.
            BrokenFile: One of them cannot be read.
        """
        paths = sorted((Path(directory) / UNITS).glob("*.json"))
        paths = [path for path in paths if keys is None or path.stem in keys]
        if not paths:
            raise MissingFile(
                f"{directory} holds no results of a benchmark: run `emend bench` to make some"
            )
        grouped: dict[Place, list[Mapping[str, Any]]] = defaultdict(list)
        for path in paths:
            result = read_result(path)
            unit = result["unit"]
            place = (unit["model"], unit["method"], unit["dataset"], unit["schedule"])
            grouped[place].append(result)
        points = [Point(*place, results) for place, results in sorted(grouped.items())]
        expected = read_expected(Path(directory) / PLAN)
        return cls(points, _identity.digest(sorted(path.stem for path in paths)), expected)

    def differences(self, other: Board, column: str) -> list[tuple[Point, Interval | None]]:
        """Return how much higher each point's values are than those of another board.

        The interval is of the mean difference over the edits that both have.
        """
        theirs = {one.place: one.parts(column) for one in other.points}
        return [
            (point, point.parts(column).difference(theirs.get(point.place, Parts([]))))
            for point in self.points
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        points = [_point_data(point) for point in self.points]
        expected = [dataclasses.asdict(one) for one in self.expected]
        return {"hash": self.hash, "points": points, "expected": expected}


def _interval_data(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else dataclasses.asdict(found)


def _point_data(point: Point) -> dict[str, Any]:
    shown = {name: _interval_data(one) for name, one in point.intervals.items()}
    own = {name: _interval_data(one) for name, one in point.published_intervals.items()}
    return {
        **{"model": point.model, "method": point.method, "dataset": point.dataset},
        **{"schedule": point.schedule, "edits": point.edits, **shown},
        **{"perplexity_change": point.perplexity, "seconds_per_edit": point.seconds},
        "cpu_seconds_per_edit": point.cpu_seconds,
        **({"cases": point.cases} if point.cases else {}),
        **({"tasks": point.tasks} if point.tasks else {}),
        **({"realistic": point.realistic} if point.realistic else {}),
        **({"drift": _interval_data(point.drift)} if point.drift else {}),
        **({"changed": point.changed} if point.changed else {}),
        **{"published": point.published, "published_intervals": own, "errors": point.errors},
    }
