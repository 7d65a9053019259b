"""The five questions of `emend methods --advise`, and its answer on a terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

import typer

from emend.cli._output import print_json, print_table
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.methods import Advice

ATTEMPTS = 3
"""How often an answer that cannot be read is asked for again."""


class YesNo(str, Enum):
    """An answer to a question."""

    yes = "yes"
    no = "no"


class Hardware(str, Enum):
    """Where edits are made."""

    cpu = "cpu"
    gpu = "gpu"


QUESTIONS = {
    "edits": "How many edits will there be?",
    "weights": "Are the model's weights at hand (no: it is behind an API)?",
    "multi_hop": "Must questions that follow from several facts be answered?",
    "revertible": "Must it be possible to take one edit out and leave the others?",
    "hardware": "Where are edits made?",
}
CHOICES: dict[str, type[Enum]] = {
    **dict.fromkeys(("weights", "multi_hop", "revertible"), YesNo),
    "hardware": Hardware,
}


@dataclass
class Situation:
    """What was answered by flags; None where a question is open."""

    edits: int | None
    weights: YesNo | None
    multi_hop: YesNo | None
    revertible: YesNo | None
    hardware: Hardware | None

    def flags(self) -> list[str]:
        """Return the flags that are given."""
        names = (one.name for one in fields(self))
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def answer(self, as_json: bool) -> None:
        """Ask what is open, and print the recommendation.

        Raises:
            InvalidInput: A question is open and standard input is no terminal.
        """
        from emend.methods import advise

        open_ones = [one.name for one in fields(self) if getattr(self, one.name) is None]
        if open_ones and not sys.stdin.isatty():
            missing = ", ".join(f"--{name}" for name in open_ones)
            raise InvalidInput(f"no terminal to ask on, expected answers by flags: add {missing}")
        for name in open_ones:
            setattr(self, name, _ask(name))
        assert self.edits is not None and self.hardware is not None
        advice = advise(
            self.edits,
            weights=self.weights is YesNo.yes,
            multi_hop=self.multi_hop is YesNo.yes,
            revertible=self.revertible is YesNo.yes,
            hardware=self.hardware.value,
        )
        if as_json:
            given = {one.name: getattr(self, one.name) for one in fields(self)}
            print_json({"situation": given, **advice.to_dict()})
        else:
            show(advice)


def _ask(name: str) -> Any:
    """Ask one question on standard error, again where the answer cannot be read."""
    choices = CHOICES.get(name)
    options = "" if choices is None else f" [{'/'.join(one.value for one in choices)}]"
    for _ in range(ATTEMPTS):
        typer.echo(f"{QUESTIONS[name]}{options} ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise typer.Abort
        answer = line.strip().lower()
        if choices is None:
            if answer.isdecimal() and int(answer) > 0:
                return int(answer)
            continue
        found = [one for one in choices if answer and one.value.startswith(answer)]
        if len(found) == 1:
            return found[0]
    expected = options.strip() or "a number of at least 1"
    raise InvalidInput(f"no answer to '{QUESTIONS[name]}', expected {expected}: begin again")


def show(advice: Advice) -> None:
    """Print a recommendation."""
    typer.echo(f"Take {advice.method}:")
    for reason in advice.reasons:
        typer.echo(f"  - {reason}")
    if advice.alternatives:
        typer.echo("Instead:")
    for other in advice.alternatives:
        typer.echo(f"  - {other.method}: {other.when}")
    if advice.cautions:
        typer.echo("Mind:")
    for caution in advice.cautions:
        typer.echo(f"  - {caution}")
    for table in advice.measured:
        typer.echo("")
        rows = [[cell.replace("`", "") for cell in row] for row in table.rows]
        print_table(f"Measured: {table.conditions}", table.columns, rows)
        typer.echo("; ".join([f"docs/{table.page}", *table.commands]))
    typer.echo(f"\nNext: {advice.command}")
