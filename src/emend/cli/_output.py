"""How commands speak: a table for people, or one JSON object for machines."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from emend._io import json_text
from emend.report.tables import Table, to_rich

if TYPE_CHECKING:
    from emend.patches import BlastRadius, Outcome

_PIPE_WIDTH = 120


def print_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output. Numbers that are not finite become null.

    Where standard output is not in UTF-8, characters beyond ASCII are escaped as JSON does it.
    """
    if (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf"):
        typer.echo(json_text(finite(data), allow_nan=False))
    else:
        typer.echo(json.dumps(finite(data), allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output."""
    print_rich(to_rich(Table(title, columns, list(rows))))


def deliver(
    report: Any,
    show: Callable[[dict[str, Any]], None],
    *,
    json: bool,
    output_path: Path | None,
    samples: bool = False,
) -> None:
    """Save a report of cases, and print its summary: as JSON, or as `show` prints it."""
    if output_path:
        report.save(output_path, samples=samples)
    if json:
        print_json({"summary": report.summary, "settings": report.settings})
        return
    show(report.summary)
    if output_path:
        typer.echo(f"written to {output_path}")


def print_rich(renderable: Any) -> None:
    """Print what rich can show; in a pipe at a fixed width."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(renderable)


def escape_unwritable() -> None:
    """Have characters that the console's encoding lacks printed as escapes: no output fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def number(value: object, digits: int = 3) -> str:
    """Write a number; a dash for what was not measured."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: object) -> str:
    """Write a share in percent; a dash for what was not measured."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return "-"
    return f"{100 * value:.1f}%"


def finite(data: Any) -> Any:
    """Replace numbers that are not finite by null, and make lists and objects plain."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in cast("Mapping[Any, Any]", data).items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in cast("Sequence[Any]", data)]
    return str(data) if isinstance(data, Path) else data


def print_blast(radius: BlastRadius | None, shown: int = 10) -> None:
    """Print what else changed: a sentence for each group of probes, and a table of answers."""
    if radius is None:
        return
    typer.echo(f"what else changed ({radius.summary()}):")
    for sentence in radius.sentences(shown=0):
        typer.echo(f"  {sentence}")
    if not radius.findings:
        return
    rows = [one.cells() for one in radius.most_telling(shown)]
    left = len(radius.findings) - len(rows)
    title = f"answers to look at{f', {len(rows)} of {left + len(rows)}' if left else ''}"
    print_table(title, ["", "prompt", "before", "after"], rows)


def print_outcomes(outcomes: Sequence[Outcome], shown: int = 10) -> None:
    """Print how many edits took, and a line for each of the first that did not."""
    from emend.patches import outcome_summary

    if not outcomes:
        return
    typer.echo(outcome_summary(outcomes))
    missed = [one for one in outcomes if not one.took]
    for one in missed[:shown] if missed else outcomes[:1] if len(outcomes) == 1 else ():
        typer.echo(f"  {one.describe()}")
    if len(missed) > shown:
        typer.echo(f"  ... and {len(missed) - shown} more: emend patch show DIRECTORY --json")
