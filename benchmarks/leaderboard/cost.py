"""Compute what a large benchmark costs from the units that a small one measured.

    emend bench --config benchmarks/leaderboard/counterfact.yaml --output_path results/leaderboard
    python benchmarks/leaderboard/cost.py results/smollm2 --models 100 --edits 10000

A unit is a batch with its evaluation, on one worker; units are independent, so that N workers
(`--shard i/N`, or `--engine ray`) take an N-th of the time as long as there are more units than
workers. Seconds are CPU seconds of the machine that measured the units, which had no
GPU: measure some units on yours.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from emend.bench import Board
from emend.report import Table, to_markdown

WORKERS = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a folder of emend bench")
    parser.add_argument("--models", type=int, default=100, help="models like those measured")
    parser.add_argument("--edits", type=int, default=10_000, help="edits of each model and method")
    given = parser.parse_args()
    rows = [
        [method, f"{seconds:.2f}", *hours(given.models * given.edits * seconds)]
        for method, seconds in sorted(seconds_an_edit(Board.read(given.results)).items())
    ]
    total = sum(float(row[1]) for row in rows)
    rows.append(["all", f"{total:.2f}", *hours(given.models * given.edits * total)])
    title = f"{given.models} models x {given.edits:,} edits: hours"
    columns = ("method", "CPU seconds an edit", *(f"{workers} workers" for workers in WORKERS))
    print(to_markdown(Table(title, columns, rows)))


def seconds_an_edit(board: Board) -> dict[str, float]:
    """Return the CPU seconds of each method, with its evaluation: the least over schedules."""
    found: dict[str, list[float]] = defaultdict(list)
    for point in board.points:
        if point.cpu_seconds is not None:
            found[point.method].append(point.cpu_seconds)
    return {method: min(values) for method, values in found.items()}


def hours(seconds: float) -> list[str]:
    """Write the time on each number of workers."""
    return [f"{seconds / 3600 / workers:,.0f}" for workers in WORKERS]


if __name__ == "__main__":
    main()
