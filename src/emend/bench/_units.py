"""Sources of edits, schedules, and the units into which a benchmark is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from emend import _identity, datasets, metrics
from emend._warn import warn
from emend.bench._grid import Variant
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput

T = TypeVar("T")

KINDS = ("single", "batch", "sequential")

ALONE = 10
"""Edits in one unit of the schedule `single`."""


@dataclass(frozen=True)
class Source:
    """Edits of one dataset.

    Attributes:
        name: What it is called in results; without a path, a registered dataset.
        path: Its file, in any form that is recognised.
        first: Number of the first edit that is taken.
        last: Number after the last one; None for all.
        sha256: Of the file, where it is pinned.
    """

    name: str
    path: str | None = None
    first: int = 0
    last: int | None = None
    sha256: str | None = None

    def edits(self, limit: int | None, seed: int) -> tuple[Edit, ...]:
        """Read the edits; records that cannot be read are counted in a warning.

        Raises:
            BrokenFile: The file is not the one that is pinned, or no edit can be read.
            InvalidInput: There are none in this range.
        """
        self._check()
        if self.path is None:
            found = tuple(datasets.load(self.name, limit=self.last or limit, seed=seed))
        else:
            reading = datasets.read(self.path)
            found = reading.edits
            if len(reading.problems):
                warn(
                    f"{len(reading.problems)} records of {self.path} are not read: "
                    f"`emend datasets check {self.path}` lists them"
                )
        return self._range(found, limit, "edits")

    def _check(self) -> None:
        """Refuse a file that is not the one pinned."""
        if self.path is None or self.sha256 is None or not Path(self.path).is_file():
            return
        found = hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        if found != self.sha256:
            raise BrokenFile(
                f"{self.path} has sha256 {found[:12]}..., expected {self.sha256[:12]}... of the "
                f"file that the plan pins for {self.name}: take that one, or remove sha256"
            )

    @cached_property
    def form(self) -> datasets.Format | None:
        """The published form of the file; None for a dataset that is drawn."""
        return None if self.path is None else datasets.read(self.path, limit=1).format

    def cases(self, limit: int | None) -> tuple[Any, ...]:
        """Read the cases of the dataset's own measure, if it has one that needs cases.

        Raises:
            InvalidInput: There are none in this range.
        """
        if self.path is None or self.form is None or not self.form.cases:
            return ()
        found = tuple(metrics.case_measure(self.form.cases).load(self.form.name, self.path))
        return self._range(found, limit, "cases")

    def _range(self, found: tuple[T, ...], limit: int | None, what: str) -> tuple[T, ...]:
        chosen = found[self.first : self.last][:limit]
        if not chosen:
            raise InvalidInput(
                f"dataset {self.name} has {len(found)} {what}, expected some from number "
                f"{self.first} on: lower first"
            )
        return chosen


@dataclass(frozen=True)
class Schedule:
    """How edits come: see `KINDS`.

    Attributes:
        kind: "single", "batch" or "sequential".
        size: Edits made at once; 1 for "single".
    """

    kind: str
    size: int = 1

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read "single", "batch:N" or "sequential:N".

        Raises:
            InvalidInput: It is something else.
        """
        kind, _, size = text.partition(":")
        good = kind in KINDS and (kind == "single") == (size == "")
        if not good or (size and not (size.isdecimal() and int(size) > 0)):
            raise InvalidInput(
                f"schedule {text!r} is unknown, expected single, batch:N or sequential:N"
            )
        return cls(kind, int(size or 1))

    def __str__(self) -> str:
        return self.kind if self.kind == "single" else f"{self.kind}:{self.size}"


@dataclass(frozen=True)
class Unit:
    """What is measured and written at once.

    Attributes:
        model: Name of the model.
        variant: Method with settings.
        dataset: Name of the dataset.
        schedule: How the edits come.
        edits: The edits.
        inputs: All else that the result depends on.
        form: The published form of the dataset's file; "" for none.
        measure: The measure of cases that is taken instead of those of the plan; "" for none.
        cases: Its cases; `edits` are theirs.
    """

    model: str
    variant: Variant
    dataset: str
    schedule: Schedule
    edits: tuple[Edit, ...]
    inputs: dict[str, Any]
    form: str = ""
    measure: str = ""
    cases: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        """The hash of all that the result depends on; a model that has no file is its name."""
        return _identity.key(
            "bench",
            model=self.model,
            method=self.variant.method.name,
            version=self.variant.method.version,
            settings=self.variant.method.configure(**self.variant.settings),
            schedule=self.schedule,
            edits=self.edits,
            **({"measure": self.measure, "cases": self.cases} if self.measure else {}),
            **self.inputs,
        )

    @property
    def about(self) -> dict[str, Any]:
        """The unit's place in the plan, as results record it."""
        return {
            "model": self.model,
            "method": self.variant.text,
            "dataset": self.dataset,
            "schedule": str(self.schedule),
            "edits": len(self.edits),
            "form": self.form,
            **({"measure": self.measure, "cases": len(self.cases)} if self.measure else {}),
        }


def parts_of(edits: Sequence[Edit], schedule: Schedule) -> Iterator[tuple[Edit, ...]]:
    """Cut edits into units; a sequence is one."""
    size = {"single": ALONE, "batch": schedule.size}.get(schedule.kind, len(edits))
    for start in range(0, len(edits), size):
        yield tuple(edits[start : start + size])


def case_parts(
    name: str, cases: Sequence[Any], schedule: Schedule
) -> Iterator[tuple[tuple[Any, ...], tuple[Edit, ...]]]:
    """Cut cases into units: some that are each alone, or those whose edits are made at once."""
    measure = metrics.case_measure(name)
    if schedule.kind == "sequential" or (schedule.kind == "batch" and not measure.batches):
        return
    group: list[Any] = []
    edits: list[Edit] = []
    for case in cases:
        more = measure.edits_of(case)
        full = len(group) if schedule.kind == "single" else len(edits) + len(more)
        if group and (full >= ALONE if schedule.kind == "single" else full > schedule.size):
            yield tuple(group), tuple(edits)
            group, edits = [], []
        group.append(case)
        edits += more
    if group:
        yield tuple(group), tuple(edits)
