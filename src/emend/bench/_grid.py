"""Grids: models x methods x numbers of edits, measured point by point, with resume."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emend import api, methods, metrics
from emend._progress import progress
from emend._settings import from_text
from emend.bench._results import ResultsFile
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.patches import Patch, load_patch

COLUMNS = {
    "reliability": ("reliability", None),
    "generalization": ("generalization", None),
    "neighborhood": ("locality", "neighborhood"),
    "relation specificity": ("locality", "relation_specificity"),
}
"""What is measured, by column: the measure, and the group of it."""

Measure = Callable[[Any, Any, Sequence[Edit], Patch], Mapping[str, "float | None"]]
"""From model, tokenizer, edits and their patch to values by column."""


@dataclass(frozen=True)
class Variant:
    """A method with settings, written as ``rome:original=true,steps=10``."""

    text: str
    method: methods.Method
    settings: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text: a method is found by its name in another process."""
        return Variant.parse, (self.text,)

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read a variant.

        Raises:
            UnknownName: There is no such method or setting.
            InvalidInput: A setting has no value, or one that does not fit.
        """
        name, _, given = text.partition(":")
        method = methods.registry().get(name)
        settings: dict[str, Any] = {}
        for part in filter(None, given.split(",")):
            setting, equals, value = part.partition("=")
            if not equals:
                raise InvalidInput(f"setting {part!r} has no value, expected name=value")
            settings[setting] = from_text(name, method.config_type, setting, value)
        return cls(text, method, settings)


@dataclass
class Grid:
    """A grid of measurements.

    Attributes:
        models: Names of models, as `emend.load` takes them.
        variants: Methods with settings, as `Variant.parse` takes them.
        counts: Numbers of edits that are in the model at once.
        draw: Gives a number of edits, with their probes.
        measure: Measures the patch of some edits.
        name: Of the dataset and the draw, such as "lab/1": results of others are not mixed.
        path: A file of JSON lines; a point in it is not measured again. None keeps none.
        small: Edits that counts below it are measured on, in parts of that count.
        values: A directory for patches; methods that solve jointly and optimise the same values
            then share them. None shares none.
    """

    models: Sequence[str]
    variants: Sequence[str]
    counts: Sequence[int]
    draw: Callable[[int], Sequence[Edit]]
    measure: Measure
    name: str
    path: Path | None = None
    small: int = 20
    values: Path | None = None
    _loaded: dict[str, tuple[Any, Any]] = field(default_factory=dict[str, Any], repr=False)

    def run(self) -> list[dict[str, Any]]:
        """Measure every point that is not in the file; return the lines of all points."""
        results = ResultsFile(self.path, "grid", {"name": self.name, "small": self.small})
        variants = [Variant.parse(text) for text in self.variants]  # refused before any work
        points = list(itertools.product(self.models, variants, self.counts))
        lines: list[dict[str, Any]] = []
        for model, variant, count in progress(points, "measuring", total=len(points)):
            point = {"model": model, "method": variant.text, "count": count}
            line = results.find(point)
            if line is None:
                line = results.add({**point, **self._point(model, variant, count)})
            lines.append(line)
        return lines

    def _point(self, name: str, variant: Variant, count: int) -> dict[str, Any]:
        if name not in self._loaded:
            self._loaded = {name: api.load(name)}  # one model at a time is in memory
        model, tokenizer = self._loaded[name]
        edits = self.draw(max(count, self.small))
        size = min(count, len(edits))
        parts = [edits[start : start + size] for start in range(0, len(edits), size)]
        joint = variant.method.continues == "joint" and len(parts) == 1
        shared = (
            self.values / f"{name.replace('/', '-')}-{count}" if self.values and joint else None
        )
        previous = load_patch(shared) if shared and shared.exists() else None
        found: list[dict[str, float | None]] = []
        for part in parts:
            started = time.process_time()
            patch = api.edit(
                *(model, tokenizer, part),
                method=variant.method,
                previous=previous,
                probes="none",
                **variant.settings,
            )
            seconds = (time.process_time() - started) / len(part)
            if shared:
                patch.save_pretrained(shared)
            found.append({**self.measure(model, tokenizer, part, patch), "seconds": seconds})
        means = {column: mean([one[column] for one in found]) for column in found[0]}
        return {**means, "reused": previous is not None}


def measure_columns(
    model: Any, tokenizer: Any, edits: Sequence[Edit], patch: Patch
) -> dict[str, float | None]:
    """Measure the values of `COLUMNS` after the edits, by exact match."""
    names = list(dict.fromkeys(metric for metric, _ in COLUMNS.values()))
    with patch.applied(model):
        summary = metrics.evaluate(model, tokenizer, edits, metrics=names).summary
    values: dict[str, float | None] = {}
    for column, (metric, group) in COLUMNS.items():
        entry = summary[metric] if group is None else summary[metric]["groups"].get(group, {})
        values[column] = entry.get("after")
    return values


def mean(values: Sequence[float | None]) -> float | None:
    """Average the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
