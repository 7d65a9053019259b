"""Every method on the lab at 1, 10, 100 and 1,000 edits: the table of docs/methods.md.

    python benchmarks/lab_methods.py --models lab/gptneo lab/qwen3 --methods memit alphaedit \
        --counts 1 10 100 1000 --results benchmarks/results/lab_methods.jsonl
    python benchmarks/lab_methods.py --show benchmarks/results/lab_methods.jsonl

Values are shares by exact match of the whole greedy answer, measured over all edits after the last
of them; 1 and 10 are means over the first 20 edits, made one by one and ten by ten. "recall" is
that of all facts of the lab that were not edited, and how much lower it is than before.
Neighborhood leaves out what another edit changes on purpose. Each line of the results is one model,
method and count; what is there is not measured again. A variant is a method with settings:
`rome:original=true`. With `--values DIRECTORY` patches are kept there, and methods
that take one another's values do (their seconds are then without the search, and marked).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import emend
from emend.bench import COLUMNS, Grid, measure_columns
from emend.bench.lab_card import exact_match
from emend.edits import Edit
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits, without_edited
from emend.methods import registry


def measure_patch(
    model: Any,
    tokenizer: Any,
    edits: Sequence[Edit],
    patch: emend.Patch,
    asked: int | None = None,
) -> dict[str, float | None]:
    """Measure one patch; of the first ``asked`` edits, but for recall."""
    before = _recall(model, tokenizer, edits)
    values = measure_columns(model, tokenizer, without_edited(edits)[:asked], patch)
    with patch.applied(model):
        after = _recall(model, tokenizer, edits)
    return {**values, "recall": after, "drop": before - after}


def _recall(model: Any, tokenizer: Any, edits: Sequence[Edit]) -> float:
    """Share of all facts that were not edited and are answered right, one wording each."""
    edited = {(edit.subject, edit.relation) for edit in edits}
    generator = random.Random(0)
    asked = [
        (generator.choice(fact.statements(seen=True)).format(fact.subject), fact)
        for fact in shipped_world().facts.values()
    ]
    rest = [(p, f.objects) for p, f in asked if (f.subject, f.relation) not in edited]
    return exact_match(model, tokenizer, rest)


def show(lines: Sequence[dict[str, Any]]) -> str:
    """The results as one Markdown table for each model."""
    texts: list[str] = []
    for name in dict.fromkeys(line["model"] for line in lines):
        texts.append(f"\n`{name}`\n")
        texts.append(f"| method | edits | {' | '.join(COLUMNS)} | recall (drop) | s / edit |")
        texts.append("|---|---:|" + "---:|" * (len(COLUMNS) + 2))
        own = [line for line in lines if line["model"] == name]
        own.sort(key=lambda line: (line["method"], line["count"]))
        for line in own:
            cells = [percent(line[column]) for column in COLUMNS]
            cells.append(f"{percent(line['recall'])} ({100 * line['drop']:.1f})")
            cells.append(f"{line['seconds']:.2f}{'*' if line['reused'] else ''}")
            texts.append(f"| `{line['method']}` | {line['count']:,} | {' | '.join(cells)} |")
    return "\n".join(texts)


def percent(value: float | None) -> str:
    """A share as a table shows it."""
    return "-" if value is None else f"{100 * value:.1f}"


def main() -> None:
    """Measure what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lab/gptneo", "lab/qwen3"])
    parser.add_argument("--methods", nargs="+", default=registry().names())
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("lab_methods.jsonl"))
    parser.add_argument("--values", type=Path, help="keep patches here, and share their values")
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    arguments = parser.parse_args()
    if arguments.show:
        text = arguments.show.read_text(encoding="utf-8")
        print(show([json.loads(line) for line in text.split("\n") if line]))
        return
    grid = Grid(
        arguments.models,
        arguments.methods,
        arguments.counts,
        draw=lambda count: draw_edits(shipped_world(), count, arguments.seed),
        measure=measure_patch,
        name=f"lab/{arguments.seed}",
        path=arguments.results,
        values=arguments.values and arguments.values / str(arguments.seed),
    )
    print(show(grid.run()))


if __name__ == "__main__":
    main()
