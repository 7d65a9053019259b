"""Measure the units of a plan, each written whole; a killed run resumes after the last one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from emend import api, metrics
from emend._io import write_json
from emend._validate import shown
from emend.bench._further import Further
from emend.bench._units import Unit
from emend.bench.plan import Plan
from emend.edits import Edit
from emend.errors import BrokenFile, EmendError, InvalidInput
from emend.metrics import Report
from emend.patches import Patch

logger = logging.getLogger("emend")

UNITS = "units"
"""The folder of a results folder that holds a file for each unit."""

PLAN = "plan.json"
"""The file of a results folder that holds the plan of the latest run."""

Loaded = tuple[Any, Any]
"""A model and its tokenizer."""

Load = Callable[[str], Loaded]


class Engine(Protocol):
    """Measures units elsewhere than in this process, such as `RayEngine`."""

    def __call__(
        self, plan: Plan, directory: Path, units: Sequence[Unit], load: Load | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number and the result of each unit, in any order."""
        ...


class Runner:
    """Measures what a results folder lacks.

    Args:
        plan: What to measure.
        directory: The results folder.
        on_unit: Called after each unit with its number, the count of units and its result.
        load: Loads a model by name; `emend.load` by default.
        engine: Measures the units; None for this process.
    """

    def __init__(
        self,
        plan: Plan,
        directory: str | Path,
        *,
        on_unit: Callable[[int, int, dict[str, Any]], None] | None = None,
        load: Load | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.plan, self.directory = plan, Path(directory)
        self._on_unit, self._given, self._load = on_unit, load, load or api.load
        self._engine = engine
        self._loaded: dict[str, Loaded] = {}
        self._further = Further(plan, self.directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise InvalidInput(f"{directory} is a file, expected a directory of results")

    def changes(self) -> list[str]:
        """Return what is different from the plan of the folder's latest run, a line a field.

        Results of the former plan stay in the folder; units that both plans have are not measured
        again.
        """
        path = self.directory / PLAN
        if not path.is_file():
            return []
        try:
            before: Any = json.loads(path.read_text("utf-8"))
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise BrokenFile(f"{path} is no plan of a benchmark: delete it, and run again")
        now = self.plan.to_dict()
        names = sorted({*now, *before})
        return [
            f"{name}: {shown(before.get(name))} before, {shown(now.get(name))} now"
            for name in names
            if before.get(name) != now.get(name)
        ]

    def run(self, shard: int = 0, shards: int = 1) -> list[dict[str, Any]]:
        """Measure every unit that is not in the folder; return the results of all units.

        A unit whose method cannot edit the model is recorded with its error, and is tried again
        by the next run.

        Args:
            shard: Of several processes the number of this one, from 0.
            shards: Number of processes; each measures every `shards`-th unit.

        Raises:
            BrokenFile: A result in the folder cannot be read.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / PLAN, self.plan.to_dict())
        units = [unit for n, unit in enumerate(self.plan.units()) if n % shards == shard]
        found = {n: kept for n, unit in enumerate(units) if (kept := self._kept(unit))}
        for number, result in enumerate(found.values(), start=1):
            self._tell(number, len(units), result)
        todo = [n for n in range(len(units)) if n not in found]
        for at, result in self._results([units[n] for n in todo]):
            found[todo[at]] = result
            self._path(units[todo[at]]).parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path(units[todo[at]]), result)
            self._tell(len(found), len(units), result)
        return [found[n] for n in range(len(units))]

    def _results(self, units: Sequence[Unit]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Measure units, here or by the engine."""
        if self._engine is not None and units:
            yield from self._engine(self.plan, self.directory, units, self._given)
            return
        for number, unit in enumerate(units):
            yield number, self.measure(unit)

    def _tell(self, number: int, count: int, result: dict[str, Any]) -> None:
        if self._on_unit:
            self._on_unit(number, count, result)

    def _path(self, unit: Unit) -> Path:
        return self.directory / UNITS / f"{unit.key}.json"

    def _kept(self, unit: Unit) -> dict[str, Any] | None:
        """Return the result of a unit that was measured before without an error."""
        path = self._path(unit)
        if not path.is_file():
            return None
        result = read_result(path)
        return None if "error" in result else {**result, "kept": True}

    def measure(self, unit: Unit) -> dict[str, Any]:
        """Measure one unit in this process; its result is not written."""
        model, tokenizer = self._model(unit.model)
        started = time.process_time()
        about = {"key": unit.key, "unit": unit.about}
        measured: dict[str, Any]
        try:
            measured = self._measure(model, tokenizer, unit)
        except EmendError as error:
            logger.warning(f"{unit.variant.text} on {unit.model}: {error}")
            measured = {"error": str(error)}
        spent = time.process_time() - started
        # Values that an earlier unit optimised count as if this one had.
        spent += measured.get("timing", {}).get("saved_cpu", 0.0)
        return {**about, **measured, "cpu_seconds": spent}

    def _model(self, name: str) -> Loaded:
        if name not in self._loaded:
            self._loaded = {name: self._load(name)}  # one model at a time is in memory
            self._further.forget()
        return self._loaded[name]

    def _measure(self, model: Any, tokenizer: Any, unit: Unit) -> dict[str, Any]:
        if unit.measure:
            return self._cases(model, tokenizer, unit)
        if unit.schedule.kind == "single":
            return self._each(model, tokenizer, unit)
        if unit.schedule.kind == "sequential":
            return self._sequence(model, tokenizer, unit)
        patch = self._edit(model, tokenizer, unit, unit.edits)
        with patch.applied(model):
            report = self._evaluated(model, tokenizer, unit.edits)
        return {**_data(report), **self._of_all(model, tokenizer, patch, unit.edits)}

    def _each(self, model: Any, tokenizer: Any, unit: Unit) -> dict[str, Any]:
        """Make each edit alone, and evaluate it."""
        made: list[tuple[Patch, Sequence[Edit]]] = []

        def make(edit: Edit) -> Patch:
            patch = self._edit(model, tokenizer, unit, [edit])
            if self.plan.realistic or self.plan.side_effects:
                made.append((patch, [edit]))
            return patch

        report = metrics.evaluate_each(
            *(model, tokenizer, unit.edits, make),
            metrics=self.plan.metrics,
            batch_size=self.plan.batch_size,
        )
        return {**_data(report), **self._further.of(model, tokenizer, made)}

    def _cases(self, model: Any, tokenizer: Any, unit: Unit) -> dict[str, Any]:
        """Ask the questions of cases, each alone or with the edits of all in the model."""
        records = metrics.case_measure(unit.measure).evaluate(
            *(model, tokenizer, unit.cases),
            lambda edits: self._edit(model, tokenizer, unit, edits),
            edits_at_once=1 if unit.schedule.kind == "single" else None,
            batch_size=self.plan.batch_size,
        )
        return {"cases": list(records)}

    def _edit(
        self,
        model: Any,
        tokenizer: Any,
        unit: Unit,
        edits: Sequence[Edit],
        previous: Patch | None = None,
    ) -> Patch:
        variant = unit.variant
        given = (model, tokenizer, edits)
        # What else changes is measured by the plan's own measures.
        how = {"method": variant.method, "previous": previous, "probes": "none"}
        return api.edit(*given, **how, **variant.settings)

    def _evaluated(self, model: Any, tokenizer: Any, edits: Sequence[Edit]) -> Report:
        names, size = self.plan.metrics, self.plan.batch_size
        return metrics.evaluate(model, tokenizer, edits, metrics=names, batch_size=size)

    def _sequence(self, model: Any, tokenizer: Any, unit: Unit) -> dict[str, Any]:
        """Make portions of edits one after another, and evaluate as the plan says."""
        evaluate, size = self.plan.evaluate, unit.schedule.size
        portions = [unit.edits[at : at + size] for at in range(0, len(unit.edits), size)]
        patch: Patch | None = None
        reports: list[tuple[int, Report]] = []
        made = 0
        for number, portion in enumerate(portions, start=1):
            patch = self._edit(model, tokenizer, unit, portion, patch)
            made += len(portion)
            every = isinstance(evaluate, int) and number % evaluate == 0
            if evaluate != "immediate" and not every and number < len(portions):
                continue
            asked = portion if evaluate == "immediate" else unit.edits[:made]
            with patch.applied(model):
                reports.append((made, self._evaluated(model, tokenizer, asked)))
        assert patch is not None  # a unit has an edit
        last = reports[-1][1]
        if evaluate == "immediate":
            records = [record for _, report in reports for record in report.records]
            last = Report(records, last.metrics, last.settings, last.timing)
        curve = [{"made": count, "summary": report.summary} for count, report in reports]
        return {**_data(last), "curve": curve, **self._of_all(model, tokenizer, patch, unit.edits)}

    def _of_all(
        self, model: Any, tokenizer: Any, patch: Patch, edits: Sequence[Edit]
    ) -> dict[str, Any]:
        """Measure what else the plan names with all edits in one patch."""
        return {
            **self._further.ability(model, tokenizer, patch),
            **self._further.of(model, tokenizer, [(patch, edits)]),
        }


def _data(report: Report) -> dict[str, Any]:
    """Return a report as plain data, without the summary, which is computed anew when read."""
    data = report.to_dict()
    del data["summary"]
    return {**data, "records": list(report.records)}


def read_result(path: Path) -> dict[str, Any]:
    """Read the result of a unit.

    Raises:
        BrokenFile: It is no result.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        result = None
    if not isinstance(result, dict) or "unit" not in result:
        raise BrokenFile(f"{path} is no result of a benchmark: delete it, and run again")
    return result
