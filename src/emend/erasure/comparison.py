"""`DefenceReport`: defences by attacks, before and after, with what each defence costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emend._brief import count_text
from emend._io import json_text, write_json, write_text
from emend.erasure.attack_report import AttackReport, Rate, markdown
from emend.errors import InvalidInput

BEFORE = "before"
ANY = "any of them"

FILES = ("defences.json", "defences.md")


@dataclass(frozen=True, repr=False)
class DefenceReport:
    """Attacks on one model in several states.

    Attributes:
        states: What attacks found in each state, by its name, in the order to show: usually
            "before" and then each defence. All have the same secrets and attacks.
        measures: Further numbers of a state, by its name, such as the share of neighbours that is
            lost; each becomes a column of the table.
        about: What was erased, by which method, on which model.

    Raises:
        InvalidInput: There are no states, or they are of other secrets or attacks.
    """

    states: Mapping[str, AttackReport]
    measures: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.states:
            raise InvalidInput("there are no states to compare, expected one at least")
        first, *others = self.states.values()
        for other in others:
            same = first.secrets == other.secrets and first.known == other.known
            if not same or _names(first) != _names(other):
                raise InvalidInput(
                    "the states are of other secrets or attacks, expected the same in all: attack "
                    "each with the same arguments, and give `known` or `base`"
                )
        unknown = [name for name in self.measures if name not in self.states]
        if unknown:
            raise InvalidInput(f"measures of {unknown[0]!r}, expected one of {list(self.states)}")

    def __repr__(self) -> str:
        attacks = count_text(len(self.attacks), "attack")
        return f"DefenceReport: {count_text(len(self.states), 'state')}, {attacks}"

    @property
    def attacks(self) -> list[str]:
        """Names of the attacks."""
        return list(_names(self._first))

    @property
    def columns(self) -> list[str]:
        """Names of the columns of rates: the attacks, and success of any."""
        return [*self.attacks, *([ANY] if len(self.attacks) > 1 else [])]

    @property
    def measured(self) -> list[str]:
        """Names of the further measures, in the order in which they first occur."""
        return list(dict.fromkeys(name for one in self.measures.values() for name in one))

    def rate(self, state: str, column: str) -> Rate | None:
        """Return the rate of an attack in a state; None where it was not run."""
        found = self.states[state]
        return found.any_attack if column == ANY else found.rates.get(column)

    def control(self, column: str) -> Rate | None:
        """Return the rate of an attack with another subject in the prompt, before any defence."""
        return self._first.controls.get(column)

    def rows(self) -> list[list[str]]:
        """Return a row for each state: its name, rates with intervals, further measures."""
        rows = [
            [
                state,
                *(_text(self.rate(state, column)) for column in self.columns),
                *(_number(self.measures.get(state, {}).get(name)) for name in self.measured),
            ]
            for state in self.states
        ]
        controls = [_text(self.control(column)) for column in self.columns]
        return [*rows, ["(another subject, first state)", *controls, *("-" for _ in self.measured)]]

    def note(self) -> str:
        """State what the rates are over."""
        return self._first.note()

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        return {
            "about": dict(self.about),
            "states": {name: one.to_dict() for name, one in self.states.items()},
            "measures": {name: dict(one) for name, one in self.measures.items()},
        }

    def to_json(self) -> str:
        """Write it as JSON."""
        return json_text(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Write it as a table of Markdown."""
        columns = ["state", *self.columns, *self.measured]
        return markdown(columns, self.rows()) + f"\n{self.note()}\n"

    def save(self, directory: str | Path) -> Path:
        """Write ``defences.json`` and ``defences.md``, each whole or not at all.

        `emend.report.write` writes the page with the heat map.

        Returns:
            The directory.
        """
        directory = Path(directory)
        write_json(directory / FILES[0], self.to_dict())
        write_text(directory / FILES[1], self.to_markdown())
        return directory

    @property
    def _first(self) -> AttackReport:
        return next(iter(self.states.values()))


def _names(report: AttackReport) -> Sequence[str]:
    return [one.attack for one in report.outcomes]


def _text(rate: Rate | None) -> str:
    return "-" if rate is None else rate.text()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
