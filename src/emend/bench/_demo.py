"""The demonstration: facts edited one at a time on clean lab models, and everything measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from emend import api, datasets, methods, metrics
from emend.edits import Edit
from emend.patches import Patch, WeightPatch

EXAMPLES = 5


@dataclass(frozen=True)
class DemoRun:
    """What the demonstration found on one model.

    Attributes:
        report: Records and summary of all edits, each alone on the clean model.
        examples: A few answers: `prompt`, the answer `before` and `after`, and what was `asked`.
    """

    report: metrics.Report
    examples: tuple[Mapping[str, str], ...]

    @property
    def seconds_per_edit(self) -> float | None:
        """Mean seconds that one edit took, what is computed once for the model left out."""
        return self.report.timing.get("per_edit")

    def to_dict(self) -> dict[str, Any]:
        """Return `before` and `after` by metric (groups as "locality/neighborhood")."""
        return {
            **{moment: self._values(moment) for moment in ("before", "after")},
            "seconds_per_edit": self.seconds_per_edit,
            "examples": [dict(example) for example in self.examples],
        }

    def _values(self, moment: str) -> dict[str, float | None]:
        values: dict[str, float | None] = {}
        for metric, entry in self.report.summary.items():
            if moment in entry:
                values[metric] = entry[moment]
            for group, part in entry.get("groups", {}).items():
                values[f"{metric}/{group}"] = part[moment]
        return values


@dataclass(frozen=True)
class Demo:
    """The demonstration on several models.

    Attributes:
        method: Name of the method.
        edits: How many facts were edited on each model.
        seed: The draw of the facts.
        models: What was found, by the model's name.
        seconds: What all of it took, loading the models included.
    """

    method: str
    edits: int
    seed: int
    models: Mapping[str, DemoRun]
    seconds: float

    title = "Facts changed in small language models"

    @property
    def command(self) -> str:
        """The command that gives the same results again."""
        return (
            f"emend demo --model lab --method {self.method} --limit {self.edits} --seed {self.seed}"
        )

    @property
    def reports(self) -> dict[str, metrics.Report]:
        """The reports by the model's name."""
        return {name: run.report for name, run in self.models.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the records as JSON-able data."""
        return {
            "method": self.method,
            "edits": self.edits,
            "seed": self.seed,
            "seconds": self.seconds,
            "models": {name: run.to_dict() for name, run in self.models.items()},
        }


def demo(
    models: Sequence[str],
    *,
    method: str = "rome",
    limit: int = 20,
    seed: int = 0,
    batch_size: int = 64,
) -> Demo:
    """Edit lab facts in each model, every one alone on the clean model, and measure.

    Args:
        models: Names or directories of models trained on the lab's world.
        method: Name of the method.
        limit: How many facts.
        seed: The draw of the facts and of their new objects.
        batch_size: Prompts per forward pass.

    Raises:
        EmendError: A model or the method is not known, or cannot be used.
    """
    started = time.perf_counter()
    methods.registry().get(method)  # a misspelt name is refused before any work
    edits = datasets.load("lab", limit=limit, seed=seed)
    runs = {name: _run(name, edits, method, batch_size) for name in dict.fromkeys(models)}
    return Demo(method, len(edits), seed, runs, time.perf_counter() - started)


def _run(name: str, edits: list[Edit], method: str, batch_size: int) -> DemoRun:
    model, tokenizer = api.load(name)
    config_type = methods.registry().get(method).config_type
    takes_templates = "templates" in {setting.name for setting in fields(config_type)}
    shared: dict[str, Any] = {}

    def patch_of(edit: Edit) -> Patch:
        patch = api.edit(model, tokenizer, [edit], method=method, **shared)
        # Contexts are of the model, not of the edit: those of the first edit serve all others.
        if takes_templates and isinstance(patch, WeightPatch) and patch.templates:
            shared.setdefault("templates", patch.templates)
        return patch

    report = metrics.evaluate_each(model, tokenizer, edits, patch_of, batch_size=batch_size)
    return DemoRun(report, _examples(report, edits))


def _examples(report: metrics.Report, edits: Sequence[Edit]) -> tuple[Mapping[str, str], ...]:
    """Return the first edits' own prompts with the answers before and after."""
    asked = {edit.id: edit.target.strip() for edit in edits}
    records = [record for record in report.records if record["metric"] == "reliability"]
    return tuple(
        {
            "prompt": record["prompt"],
            "before": record["text_before"].strip(),
            "after": record["text_after"].strip(),
            "asked": asked[record["edit"]],
        }
        for record in records[:EXAMPLES]
    )
