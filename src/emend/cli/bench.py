"""`emend bench`: measure models x methods x datasets x schedules, and compare results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._options import flag
from emend.cli._output import print_json
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend bench --config examples/bench.yaml --output_path results/",
    "emend bench --config bench.yaml --output_path results/ --limit 20 --shard 0/4",
    "emend bench --config bench.yaml --output_path results/ --log_samples",
    "emend bench --config examples/recipes/llama2-7b-zsre.yaml --output_path results/ \\",
    "      --model smollm2-135m --limit 20",
    "emend bench --config bench.yaml --output_path results/ --engine ray --workers 8 --gpus 0.5",
    "emend bench --output_path results/",
    "emend bench --output_path results/ --compare earlier/",
    "",
    "A run that was killed goes on where it was. Without --config results are only read.",
)


def command(
    *,
    output_path: Annotated[
        Path, flag("The results folder: made, continued or read.", metavar="DIRECTORY")
    ],
    config: Annotated[Path | None, flag("What to measure.", metavar="FILE")] = None,
    limit: _options.Limit = None,
    seed: Annotated[int | None, flag("Seed of draws, in place of the file's.")] = None,
    model: Annotated[
        list[str] | None,
        flag("In place of the file's models; may be repeated.", metavar="NAME"),
    ] = None,
    shard: Annotated[
        str | None, flag("Measure part I of N (from 0), for job arrays.", metavar="I/N")
    ] = None,
    compare: Annotated[
        Path | None, flag("Another results folder: differences by edit.", metavar="DIRECTORY")
    ] = None,
    log_samples: Annotated[
        bool, flag("Write what was asked and generated to samples/, a line a question.")
    ] = False,
    engine: Annotated[
        str, flag("local (this process), or ray; needs emend[ray].", metavar="WORD")
    ] = "local",
    workers: Annotated[int, flag("Processes of --engine ray.", min=1)] = 2,
    address: Annotated[
        str | None, flag("Of a running Ray cluster; else one is started here.", metavar="ADDRESS")
    ] = None,
    gpus: Annotated[float, flag("GPUs of each worker of Ray; a fraction shares one.", min=0)] = 0,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Measure every model, method, dataset and schedule of a file, and write a leaderboard.

    The folder gets one file for each small unit (units/), results of other configurations stay in
    it, and leaderboard.md and leaderboard.html show those of this one. Values are by exact match
    of what is generated, with intervals of 95% by bootstrap over edits.
    """
    part, parts = _shard(shard)
    if engine not in ("local", "ray"):
        raise InvalidInput(f"engine is {engine!r}, expected local or ray")
    if engine == "local" and (address or gpus):
        raise InvalidInput("address and gpus need --engine ray: add it")
    from emend import bench, report

    keys: list[str] | None = None
    if config is not None:
        models = tuple(model) if model else None
        plan = bench.Plan.read(config, limit=limit, seed=seed, models=models)
        keys = [unit.key for unit in plan.units()]
        tell = None if json else _Teller()
        on_ray = bench.RayEngine(workers, address, gpus) if engine == "ray" else None
        runner = bench.Runner(plan, output_path, on_unit=tell, load=loading.load, engine=on_ray)
        for line in runner.changes():
            typer.echo(f"changed since the latest run: {line}", err=True)
        runner.run(part, parts)
    elif limit or seed is not None or shard or model:
        raise InvalidInput(
            "model, limit, seed and shard need --config FILE: without it nothing is run"
        )
    board = bench.Board.read(output_path, keys)
    for name in ("leaderboard.md", "leaderboard.html"):
        report.write(board, output_path / name)
    if log_samples:
        bench.log_samples(output_path, keys)
    others = None if compare is None else bench.Board.read(compare)
    differences = None if others is None else _differences(board, others)
    if json:
        data = board.to_dict()
        print_json(data if differences is None else {**data, "differences": differences})
        return
    from rich.console import Console

    Console().print(report.terminal(board))
    for one in differences or ():
        typer.echo(_sentence(one))
    typer.echo(f"written to {output_path / 'leaderboard.html'}")


def _shard(text: str | None) -> tuple[int, int]:
    """Read "I/N"."""
    if text is None:
        return 0, 1
    number, _, count = text.partition("/")
    if number.isdecimal() and count.isdecimal() and int(number) < int(count):
        return int(number), int(count)
    raise InvalidInput(f"shard is {text!r}, expected I/N with I from 0 to N - 1: write 0/4")


class _Teller:
    """Prints a line for each unit, with edits a second and the time left."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._units = self._edits = 0

    def __call__(self, number: int, count: int, result: dict[str, Any]) -> None:
        unit = result["unit"]
        place = f"{unit['model']} {unit['method']} {unit['dataset']} {unit['schedule']}"
        place += f" {unit['measure']}" if "measure" in unit else ""
        how = self._how(count - number, result)
        typer.echo(f"[{number}/{count}] {place}, {unit['edits']} edits: {how}")

    def _how(self, left: int, result: dict[str, Any]) -> str:
        if result.get("kept"):
            return "kept"
        if "error" in result:
            return f"cannot: {result['error']}"
        self._units += 1
        self._edits += result["unit"]["edits"]
        seconds = time.monotonic() - self._started
        found = f"{result['cpu_seconds']:.1f} CPU s, {self._edits / seconds:.2g} edits a second"
        return f"{found}, some {left * seconds / self._units / 60:.0f} min left" if left else found


def _differences(board: Any, other: Any) -> list[dict[str, Any]]:
    from emend.bench.leaderboard import COLUMNS

    return [
        {
            **{"model": point.model, "method": point.method, "dataset": point.dataset},
            **{"schedule": point.schedule, "column": column},
            **{"difference": found.mean, "low": found.low, "high": found.high},
        }
        for column in (*COLUMNS, *_scores(board))
        for point, found in board.differences(other, column)
        if found is not None
    ]


def _scores(board: Any) -> list[str]:
    """List the datasets' own scores that are made of edits."""
    return list(dict.fromkeys(name for point in board.points for name in point.scores))


def _sentence(one: dict[str, Any]) -> str:
    place = f"{one['model']} {one['method']} {one['dataset']} {one['schedule']}"
    low, high = 100 * one["low"], 100 * one["high"]
    change = f"{100 * one['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
    return f"{place}: {one['column']} {change}"
