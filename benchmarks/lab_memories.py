"""Memories beside the lab models as they grow: the tables and the plot of docs/memories.md.

    python benchmarks/lab_memories.py --models lab/gptneo lab/qwen3 --methods grace serac wise ike \
        --counts 1 10 100 1000 --results benchmarks/results/lab_memories.jsonl
    python benchmarks/lab_memories.py --show benchmarks/results/lab_memories.jsonl \
        --plot docs/images/memories.svg

What is measured, and how, is said in benchmarks/lab_methods.py, by which it is measured; only that
at 1,000 edits the questions of the first 100 are asked (``--asked``), and that of 1 and 10 edits
the first memories only are made (``--parts``). "adding" is the time of one more edit once the
memory holds all, in seconds of CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_methods import measure_patch, percent

import emend
from emend.bench import COLUMNS, mean
from emend.edits import Edit
from emend.lab import SETTINGS, shipped_world
from emend.lab.consequences import draw_edits
from emend.methods import registry

COLOURS = {"grace": "#0072b2", "serac": "#d55e00", "wise": "#009e73", "ike": "#cc79a7"}
SHARES = ("reliability", "neighborhood")


def measure(
    name: str, method: str, count: int, seed: int, asked: int, parts: int
) -> dict[str, Any]:
    """One line of the results: means over some memories of so many edits."""
    model, tokenizer = emend.load(name)
    wanted = max(count, min(parts * count, asked))
    drawn = draw_edits(shipped_world(), wanted + 1, seed)
    lines: list[dict[str, Any]] = []
    for start in range(0, wanted - count + 1, count):
        edits = drawn[start : start + count]
        started = time.process_time()
        patch = emend.edit(model, tokenizer, edits, method=method, **SETTINGS.get(method, {}))
        seconds = (time.process_time() - started) / count
        values = measure_patch(model, tokenizer, edits, patch, asked=asked)
        added = _adding(model, tokenizer, patch, drawn[-1], method)
        lines.append({**values, "seconds": seconds, "adding": added})
    joined = {key: mean([one[key] for one in lines]) for key in lines[0]}
    told = {"model": name, "method": method, "count": count, "seed": seed}
    return {**told, "memories": len(lines), "asked": min(asked, count), **joined}


def _adding(model: Any, tokenizer: Any, patch: emend.Patch, edit: Edit, method: str) -> float:
    """Seconds of CPU that one more edit takes; the second time, when all is loaded."""
    for _ in range(2):
        started = time.process_time()
        emend.edit(
            model, tokenizer, [edit], method=method, previous=patch, **SETTINGS.get(method, {})
        )
    return time.process_time() - started


def show(lines: Sequence[dict[str, Any]]) -> str:
    """The results as one Markdown table for each model."""
    texts: list[str] = []
    for name in dict.fromkeys(line["model"] for line in lines):
        heads = ["method", "edits", *COLUMNS, "recall (drop)", "s / edit", "adding one, s"]
        texts += [f"\n`{name}`\n", f"| {' | '.join(heads)} |", "|---" + "|---:" * 8 + "|"]
        own = [line for line in lines if line["model"] == name]
        for line in sorted(own, key=lambda line: (line["method"], line["count"])):
            cells = [f"`{line['method']}`", f"{line['count']:,}"]
            cells += [percent(line[column]) for column in COLUMNS]
            cells.append(f"{percent(line['recall'])} ({100 * line['drop']:.1f})")
            cells += [f"{line['seconds']:.3f}", f"{line['adding']:.3f}"]
            texts.append(f"| {' | '.join(cells)} |")
    return "\n".join(texts)


def plot(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Reliability and neighborhood by the number of edits in memory, one panel a model."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(line["model"] for line in lines))
    figure = Figure(figsize=(4.5 * len(models), 5), layout="constrained")
    axes = figure.subplots(len(SHARES), len(models), sharex=True, squeeze=False)
    for column, model in enumerate(models):
        for row, share in enumerate(SHARES):
            axis = axes[row][column]
            for method in dict.fromkeys(line["method"] for line in lines):
                own = [x for x in lines if (x["model"], x["method"]) == (model, method)]
                own.sort(key=lambda line: line["count"])
                known = [x for x in own if x[share] is not None]
                colour = COLOURS.get(method.partition(":")[0], "#4d4d4d")
                counts = [x["count"] for x in known]
                axis.plot(counts, [100 * x[share] for x in known], "o-", color=colour, label=method)
            axis.set(xscale="log", ylim=(-3, 103), title=f"{model}: {share}, percent")
            axis.grid(alpha=0.3)
        axes[-1][column].set_xlabel("edits in memory")
    axes[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure what is not there yet, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    memories = [name for name in registry().names() if registry().get(name).is_memory]
    parser.add_argument("--models", nargs="+", default=["lab/gptneo", "lab/qwen3"])
    parser.add_argument("--methods", nargs="+", default=memories)
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--asked", type=int, default=100, help="ask about the first so many edits")
    parser.add_argument("--parts", type=int, default=10, help="memories of a small count, at most")
    parser.add_argument("--results", type=Path, default=Path("lab_memories.jsonl"))
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    parser.add_argument("--plot", type=Path, help="draw the results to this file (.svg)")
    given = parser.parse_args()
    path = given.show or given.results
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(line["model"], line["method"], line["count"], line["seed"]) for line in lines}
    for name in [] if given.show else given.models:
        for method in given.methods:
            for count in given.counts:
                if (name, method, count, given.seed) in done:
                    continue
                line = measure(name, method, count, given.seed, given.asked, given.parts)
                lines.append(line)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
    print(show(lines))
    if given.plot:
        plot(lines, given.plot)


if __name__ == "__main__":
    main()
