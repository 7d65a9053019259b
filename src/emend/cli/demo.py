"""`emend demo`: edit facts and show what changed and what did not."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_outcomes, print_table
from emend.errors import InvalidInput, MissingFile

if TYPE_CHECKING:
    from emend.bench import Demo, RealDemo

EXAMPLES = _options.examples(
    "emend demo",
    "emend demo --json",
    "emend demo --method alphaedit",
    "emend demo --model lab --limit 5",
    "emend demo --model lab/qwen3 --method ft",
)
REAL = "smollm2-135m"
LAB = ("lab/gptneo", "lab/qwen3")


def command(
    model: Annotated[
        list[str] | None,
        flag(
            f"{REAL} (the default), lab for both models of the lab, or a model trained on the "
            "lab's world. May be repeated.",
            metavar="MODEL",
        ),
    ] = None,
    method: Annotated[
        str | None, flag("An editor: by default memit, on the lab rome.", metavar="NAME")
    ] = None,
    limit: Annotated[int, flag("How many facts to edit on the lab.", min=1)] = 20,
    seed: _options.Seed = 0,
    batch_size: _options.BatchSize = 64,
    output_path: Annotated[Path, flag("Where everything goes.", metavar="DIRECTORY")] = Path(
        "demo"
    ),
    json: _options.Json = False,
) -> None:
    """Edit facts of a real model, measure what else changed, and take one of them back.

    On SmolLM2-135M six facts that people know are edited at once, out of a ledger: answers before
    and after, as completions and in a chat; what is near and what else is known of the subjects;
    the same with one edit taken back. Writes report.html, the patch and the ledger to
    --output_path. Where no package index can be reached, and with --model lab, facts of the lab's
    invented world are edited in its two small models instead, each alone.
    """
    output_directory(output_path)
    from emend.bench import RealDemo
    from emend.report import write

    options = {"limit": limit, "seed": seed, "batch_size": batch_size}
    result = _result(model or [REAL], method, output_path, options)
    title, again = result.title, result.command
    page = write(result.reports, output_path / "report.html", title=title, command=again)
    if json:
        print_json({**result.to_dict(), "report": page})
        return
    _print_real(result) if isinstance(result, RealDemo) else _print_lab(result)
    typer.echo(f"the whole report: {page}")


def _result(
    models: list[str], method: str | None, output_path: Path, options: dict[str, int]
) -> Demo | RealDemo:
    """Run the demonstration on the real model, or where it cannot be had on the lab's models."""
    from emend import bench

    if REAL in models and len(models) > 1:
        raise InvalidInput(
            f"--model {REAL} is given with others, expected it alone: run them apart"
        )
    if models == [REAL]:
        try:
            size = options["batch_size"]
            chosen = method or "memit"
            return bench.real_demo(output_path, model=REAL, method=chosen, batch_size=size)
        except MissingFile as error:
            typer.echo(f"emend: {error}; going on with the lab's models", err=True)
            models = ["lab"]
    models = [name for one in models for name in (LAB if one == "lab" else (one,))]
    return bench.demo(models, method=method or "rome", **options)


def _print_real(result: RealDemo) -> None:
    print_outcomes(result.outcomes)
    changed = [one for one in result.answers if one.target]
    rows = ([one.kind, one.prompt, one.before, one.after, one.target] for one in changed)
    title = f"{len(result.outcomes)} facts edited at once in {result.model} by {result.method}"
    print_table(title, ("", "prompt", "before", "after", "edited to"), rows)
    rest = [one for one in result.answers if not one.target]
    kept = sum(not one.changed for one in rest)
    rows = ([one.kind, one.prompt, one.before, one.after] for one in rest)
    title = f"What must not change: {kept} of {len(rest)} begin as before"
    print_table(title, ("", "prompt", "before", "after"), rows)
    rows = ([one.prompt, one.before, one.after, one.reverted] for one in result.taken_back)
    again = f"{result.solved} edits solved for again"
    title = f"One edit taken back in the ledger ({again})"
    print_table(title, ("prompt", "before", "with all six", "taken back"), rows)
    patch = shlex.quote(str(result.patch))
    typer.echo(f"{result.seconds:.0f} CPU seconds; the patch is an ordinary PEFT adapter: {patch}")
    typer.echo(f"measure it again: emend eval --model {result.model} --patch {patch}")
    typer.echo(f"the ledger: emend ledger log {shlex.quote(str(result.ledger))}")


def _print_lab(result: Demo) -> None:
    columns = ["metric"]
    for name in result.models:
        columns += [f"{name} before", "after"]
    found = [run.to_dict() for run in result.models.values()]
    metrics = list(dict.fromkeys(metric for run in found for metric in run["after"]))
    rows = [[metric, *_cells(metric, found)] for metric in metrics]
    seconds = [cell for run in found for cell in ("", number(run["seconds_per_edit"], 2))]
    rows.append(["seconds per edit", *seconds])
    title = f"{result.edits} facts edited by {result.method}, each alone on the clean model"
    print_table(title, columns, rows)
    for name, run in result.models.items():
        examples = (
            [one["prompt"], one["before"], one["after"], one["asked"]] for one in run.examples
        )
        print_table(f"Answers of {name}", ("prompt", "before", "after", "edited to"), examples)
    typer.echo("Numbers from the lab are about the lab: small models of a small invented world.")


def _cells(metric: str, found: list[dict[str, Any]]) -> list[str]:
    show = number if metric.startswith("fluency") else percent
    return [show(run[moment].get(metric)) for run in found for moment in ("before", "after")]
