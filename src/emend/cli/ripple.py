"""`emend ripple`: make each edit of RippleEdits and test what follows from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import deliver, number, percent, print_table
from emend.cli._settings import as_data

EXAMPLES = _options.examples(
    "emend ripple --model smollm2-135m --method rome --path popular.json --limit 20",
    "emend ripple --model lab/qwen3 --method ike --path random.json --output_path results/ --json",
)


def command(
    *,
    model: _options.Model,
    path: Annotated[Path, flag("A file of RippleEdits.", metavar="FILE")],
    method: _options.Method = "rome",
    limit: Annotated[int | None, flag("Take at most this many edits.", min=1)] = None,
    seed: _options.Seed = 0,
    settings: _options.Settings,
    batch_size: _options.BatchSize = 32,
    output_path: _options.OutputPath = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Make each edit of a RippleEdits file alone and run its tests: six published criteria.

    A test counts if the unedited model answers its condition queries. success: share of edits whose
    target is generated; score: mean share of passed tests, over the edits that took.
    """
    output_directory(output_path)
    from emend import api
    from emend.datasets.rippleedits import load_cases
    from emend.metrics import evaluate_ripple

    cases = load_cases(path, limit=limit, seed=seed)
    chosen = settings.of(method)
    network, tokenizer = loading.load(model)
    report = evaluate_ripple(
        network,
        tokenizer,
        cases,
        lambda edits: api.edit(network, tokenizer, edits, method=method, probes="none", **chosen),
        batch_size=batch_size,
    )
    report.settings.update(
        method=method, method_settings=as_data(chosen), path=path.name, seed=seed
    )
    title = f"{method} on {model}, {path.name}"
    show = partial(_show, title)
    deliver(report, show, json=json, output_path=output_path)


def _show(title: str, summary: dict[str, Any]) -> None:
    typer.echo(f"success: {percent(summary['success'])} of {summary['n']} edits")
    rows = [
        [name, percent(one["score"]), number(one["edits"]), number(one["tests"])]
        for name, one in summary["criteria"].items()
    ]
    print_table(title, ("criterion", "score", "edits", "tests that count"), rows)
