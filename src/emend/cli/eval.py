"""`emend eval`: measure what a saved patch changes, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._output import output_directory, percent, print_json, print_table
from emend.edits import Edit, read_edits
from emend.errors import InvalidInput

NAME = "eval"
EXAMPLES = _options.examples(
    "emend eval --model lab/gptneo --patch patch/ --output_path results/",
    "emend eval --model lab/gptneo --patch patch/ --edits edits.jsonl --json",
)


def command(
    model: _options.Model,
    patch: Annotated[
        Path, typer.Option("--patch", help="A directory `emend edit` wrote.", metavar="DIRECTORY")
    ],
    edits: _options.Edits = None,
    output_path: _options.OutputPath = None,
    batch_size: _options.BatchSize = 32,
    limit: _options.Limit = None,
    json: _options.Json = False,
) -> None:
    """Measure a patch: every metric before and after, on the edits it holds or on --edits.

    With --output_path, records.jsonl (one line per question) and summary.json are written there.
    """
    given = read_edits(edits) if edits else None
    output_directory(output_path)
    from emend import api, patches

    loaded = patches.load_patch(patch)
    wanted = _edits(given, loaded.edits, patch)[:limit]
    network, tokenizer = api.load(model)
    with loaded.applied(network):
        report = api.evaluate(network, tokenizer, wanted, batch_size=batch_size)
    if output_path:
        report.save(output_path)
    if json:
        print_json({"model": model, "patch": patch, "edits": len(wanted), **report.to_dict()})
        return
    print_summary(f"{patch} on {model}, {len(wanted)} edits", report.summary)
    if output_path:
        typer.echo(f"written to {output_path}")


def _edits(given: list[Edit] | None, kept: tuple[Edit, ...], patch: Path) -> list[Edit]:
    if given is None and not kept:
        raise InvalidInput(f"{patch} holds no edits to ask about, expected --edits FILE: add it")
    return given if given is not None else list(kept)


def print_summary(title: str, summary: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of a report's summary: each metric, its groups, before and after by protocol."""
    rows: list[list[str]] = []
    for metric, entry in summary.items():
        if "protocols" in entry:
            rows.append(_row(metric, entry))
            rows += [_row(f"  {name}", group) for name, group in entry.get("groups", {}).items()]
    columns = ("metric", "edits", "before", "after", "teacher-forced", "probability")
    print_table(title, columns, rows)
    typer.echo("before and after by exact match of the greedy answer; the last two columns after")
    for metric, entry in summary.items():
        if "protocols" not in entry:
            numbers = (f"{name} {_plain(value)}" for name, value in entry.items())
            typer.echo(f"{metric}: {', '.join(numbers)}")


def _row(name: str, entry: Mapping[str, Any]) -> list[str]:
    protocols = entry["protocols"]
    others = (protocols.get(other, {}).get("after") for other in ("teacher_forced", "probability"))
    shares = [entry["before"], entry["after"], *others]
    return [name, str(entry.get("n", "-")), *(percent(share) for share in shares)]


def _plain(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)
