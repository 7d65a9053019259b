"""`emend sweep`: which layer to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import integers, output_directory, read_edits
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_table
from emend.edits import Edit
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend sweep --model lab/gptneo",
    "emend sweep --model lab/qwen3 --method memit --layers 2,3,4",
    "emend sweep --model gpt2 --edits edits.jsonl --output_path sweep/",
)

RESULTS = "sweep.jsonl"


_Width = Annotated[int | None, flag("Layers in a window, for methods that edit several.", min=1)]
_Together = Annotated[
    bool | None,
    typer.Option(
        "--together/--alone",
        help="Edit all facts at once, or each alone on the clean model.",
        show_default=False,
    ),
]


def command(
    *,
    model: _options.Model,
    method: _options.Method = "rome",
    layers: Annotated[str, flag("Which to try: all, or e.g. 0,1,2.", metavar="LAYERS")] = "all",
    width: _Width = None,
    together: _Together = None,
    edits: _options.Edits = None,
    limit: Annotated[int, flag("On how many facts each layer is tried.", min=1)] = 20,
    seed: _options.Seed = 0,
    settings: _options.Settings,
    batch_size: _options.BatchSize = 64,
    output_path: _options.OutputPath = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Try a method at every layer on a few facts, measure, and say which layer to take.

    A method that edits one layer is tried at each; one that edits several, at windows of as many
    layers as it takes by default, ending at each layer. The table has the best first, by the
    Score: the harmonic mean of reliability, generalization and specificity (neighborhood).

    Methods that solve for all edits jointly (MEMIT, PMET, AlphaEdit) edit the facts together, all
    others each alone on the clean model; --together and --alone decide otherwise.

    Without --edits facts of the lab are taken, drawn by --seed: for the lab's models only. With
    --output_path results go to sweep.jsonl there, and an interrupted sweep goes on from them.
    """
    chosen = integers("--layers", layers)
    wanted = _edits(model, edits, limit)
    output_directory(output_path)
    from emend import bench, datasets

    given = settings.of(method)
    network, tokenizer = loading.load(model)
    result = bench.sweep(
        network,
        tokenizer,
        datasets.load("lab", limit=limit, seed=seed) if wanted is None else wanted,
        method=method,
        layers=chosen,
        width=width,
        together=together,
        settings=given,
        batch_size=batch_size,
        path=output_path and output_path / RESULTS,
    )
    print_json({"model": model, **result.to_dict()}) if json else _tell(result, model)


def _edits(model: str, path: Path | None, limit: int) -> list[Edit] | None:
    """Read the edits of the file; None for the lab's own."""
    if path is not None:
        return read_edits(path, limit)
    if model.startswith("lab/"):
        return None
    raise InvalidInput(
        f"no edits are given for {model}, expected --edits FILE: facts of the lab are known to "
        "the lab's models only"
    )


def _tell(result: Any, model: str) -> None:
    how = "edited together" if result.together else "each edited alone"
    title = f"{result.method} on {model}: {result.edits} facts, {how}"
    shares = ("score", "reliability", "generalization", "neighborhood", "locality")
    rows = [
        [row.flag, *(percent(getattr(row, name)) for name in shares), number(row.seconds_per_edit)]
        for row in result.rows
    ]
    print_table(title, ("setting", *shares, "seconds per edit"), rows)
    for row in result.rows:
        if row.error is not None:
            typer.echo(f"{row.flag} cannot be edited: {row.error}")
    if result.best is not None:
        typer.echo(f"take: --method {result.method} --set {result.best.flag}")
    if model.startswith("lab/"):
        typer.echo("Numbers from the lab are about the lab.")
