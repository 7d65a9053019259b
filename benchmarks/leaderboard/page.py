"""Write the tables of docs/leaderboard.md from a results folder.

    make leaderboard LIMIT="--limit 20"
    python benchmarks/leaderboard/page.py results/leaderboard docs/leaderboard.md
    python benchmarks/leaderboard/page.py results/lab docs/lab.md --plans benchmarks/leaderboard/lab

Of each model, method, dataset and schedule the largest number of edits is shown whose units are all
measured, so that the page grows with the folder, and never mixes runs of different size.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from emend._io import write_text
from emend.bench import Board, Plan, Unit
from emend.bench.running import UNITS
from emend.report import Table, to_markdown, view_of

PLANS = Path(__file__).parent
SIZES = (None, 50, 20, 10)
"""Edits of a dataset, the largest first; None for all that a plan names."""

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="a folder of emend bench")
    parser.add_argument("page", type=Path, help="the page whose tables are replaced")
    parser.add_argument("--plans", type=Path, default=PLANS, help="the folder of the plans")
    given = parser.parse_args()
    text = given.page.read_text("utf-8")
    front, _, rest = text.partition(BEGIN)
    _, _, back = rest.partition(END)
    tables = "\n\n".join(sections(board_of(given.results, given.plans)))
    write_text(given.page, f"{front}{BEGIN}\n\n{tables}\n\n{END}{back}")


def board_of(results: Path, plans: Path) -> Board:
    """Read the largest complete measurement of each place."""
    there = {path.stem for path in (results / UNITS).glob("*.json")}
    keys: list[str] = []
    for plan in sorted(plans.glob("*.yaml")):
        places: set[tuple[str, ...]] = set()
        for size in SIZES:
            for place, units in _by_place(Plan.read(plan, limit=size)).items():
                own = [unit.key for unit in units]
                if place not in places and there.issuperset(own):
                    places.add(place)
                    keys += own
    return Board.read(results, keys)


def _by_place(plan: Plan) -> dict[tuple[str, ...], list[Unit]]:
    found: dict[tuple[str, ...], list[Unit]] = {}
    for unit in plan.units():
        about = unit.about
        place = *(about[name] for name in ("model", "method", "dataset", "schedule")), unit.measure
        found.setdefault(place, []).append(unit)
    return found


def sections(board: Board) -> Iterator[str]:
    """Yield what the page holds: how it was made, and the tables of each model."""
    yield (
        f"Run `{board.hash}`; emend {version('emend')}, torch {version('torch')}, transformers "
        f"{version('transformers')}; {_processor()}, one thread, {platform.system()}."
    )
    for model in dict.fromkeys(point.model for point in board.points):
        points = [point for point in board.points if point.model == model]
        yield f"## {model}"
        for table in view_of(Board(points, board.hash)).tables():
            yield to_markdown(_without_model(table)).strip()


def _without_model(table: Table) -> Table:
    """Return a table of one model without the column that names it."""
    rows = [row[1:] for row in table.rows]
    return replace(table, columns=table.columns[1:], rows=rows)


def _processor() -> str:
    """Return the processor's name, as Linux states it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
