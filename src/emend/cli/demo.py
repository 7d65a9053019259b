"""`emend demo`: edit facts in the lab models and show what changed and what did not."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._output import number, output_directory, percent, print_json, print_table

NAME = "demo"
EXAMPLES = _options.examples("emend demo", "emend demo --json", "emend demo --limit 5 --method ft")


def command(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model trained on the lab's world. May be repeated.", metavar="MODEL"
        ),
    ] = None,
    method: _options.Method = "rome",
    limit: Annotated[int, typer.Option("--limit", help="How many facts to edit.", min=1)] = 20,
    seed: _options.Seed = 0,
    batch_size: _options.BatchSize = 64,
    output_path: Annotated[
        Path,
        typer.Option("--output_path", help="Where report.html goes.", metavar="DIRECTORY"),
    ] = Path("demo"),
    json: _options.Json = False,
) -> None:
    """Edit facts in both lab models, each alone on the clean model, and measure all that changed.

    Prints the metrics before and after with a few answers, and writes one self-contained page,
    report.html, to --output_path.
    """
    output_directory(output_path)
    from emend import report
    from emend.bench import demo

    result = demo(
        model or ["lab/gptneo", "lab/qwen3"],
        method=method,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
    )
    chosen = [word for one in model or () for word in ("--model", one)]
    words = ["emend", "demo", *chosen, "--method", method]
    page = report.write_html(
        result.reports,
        output_path / "report.html",
        title="Facts changed in small language models",
        command=f"{shlex.join(words)} --limit {limit} --seed {seed}",
    )
    if json:
        print_json({**result.to_dict(), "report": page})
        return
    _tell(result)
    typer.echo(f"the whole report: {page}")
    typer.echo("Numbers from the lab are about the lab: small models of a small invented world.")


def _tell(result: Any) -> None:
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


def _cells(metric: str, found: list[dict[str, Any]]) -> list[str]:
    show = number if metric.startswith("fluency") else percent
    return [show(run[moment].get(metric)) for run in found for moment in ("before", "after")]
