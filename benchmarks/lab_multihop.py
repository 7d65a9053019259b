"""Multi-hop questions of the lab after edits: the table of docs/multi-hop.md.

    python benchmarks/lab_multihop.py --models lab/qwen3 lab/gptneo \
        --methods mello ike memit rome --counts 1 100 all --results lab_multihop.jsonl
    python benchmarks/lab_multihop.py --show lab_multihop.jsonl

A count is how many edits are in the model at once; "1" is each instance alone with its own edits
(one to four). Values are shares of instances, by exact match of the whole greedy answer to one of
the three forms of the question. Each line of the results is one model, method and count; what is
there is not measured again. A variant is a method with settings: `mello:threshold=0`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import emend
from emend import datasets
from emend.cli._settings import settings_for
from emend.lab import SETTINGS
from emend.methods import registry
from emend.metrics import evaluate_multi_hop

HOPS = ("2", "3", "4")


def measure(name: str, variant: str, count: str, limit: int, seed: int) -> dict[str, Any]:
    """One line of the results."""
    model, tokenizer = emend.load(name)
    instances = datasets.load_multi_hop("lab", limit=limit, seed=seed)
    method, _, given = variant.partition(":")
    config = registry().get(method).config_type
    chosen = settings_for(method, config, None, given.split(",") if given else None)
    settings = {**SETTINGS.get(method, {}), **chosen}
    started = time.process_time()
    report = evaluate_multi_hop(
        model,
        tokenizer,
        instances,
        lambda edits: emend.edit(model, tokenizer, edits, method=method, **settings),
        edits_at_once=None if count == "all" else int(count),
    )
    seconds = time.process_time() - started
    line = {"model": name, "method": variant, "count": count, "limit": limit, "seed": seed}
    edits = max(record["edits_at_once"] for record in report.records)
    return {**line, "edits": edits, "seconds": seconds, **report.summary}


def show(lines: Sequence[dict[str, Any]]) -> str:
    """The results as one Markdown table for each model."""
    texts: list[str] = []
    for name in dict.fromkeys(line["model"] for line in lines):
        texts.append(f"\n`{name}`\n")
        columns = [*(f"{hops} hops" for hops in HOPS), "all", "edit-wise", "instance-wise", "old"]
        texts.append(f"| method | edits at once | {' | '.join(columns)} |")
        texts.append("|---|---:|" + "---:|" * len(columns))
        for line in [line for line in lines if line["model"] == name]:
            by_hops = [line["by_hops"].get(hops, {}).get("multi_hop") for hops in HOPS]
            rest = [line[c] for c in ("multi_hop", "edit_wise", "instance_wise", "old_answer")]
            cells = ["-" if v is None else f"{100 * v:.0f}" for v in (*by_hops, *rest)]
            at_once = f"all ({line['edits']})" if line["count"] == "all" else line["count"]
            texts.append(f"| `{line['method']}` | {at_once} | {' | '.join(cells)} |")
    return "\n".join(texts)


def main() -> None:
    """Measure what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lab/qwen3", "lab/gptneo"])
    parser.add_argument("--methods", nargs="+", default=["mello", "ike", "memit", "rome"])
    parser.add_argument("--counts", nargs="+", default=["1", "100", "all"])
    parser.add_argument("--limit", type=int, default=90, help="instances")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("lab_multihop.jsonl"))
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    arguments = parser.parse_args()
    path = arguments.show or arguments.results
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keys = ("model", "method", "count", "limit", "seed")
    done = {tuple(line[key] for key in keys) for line in lines}
    for name in [] if arguments.show else arguments.models:
        for variant in arguments.methods:
            for count in arguments.counts:
                if (name, variant, count, arguments.limit, arguments.seed) in done:
                    continue
                line = measure(name, variant, count, arguments.limit, arguments.seed)
                lines.append(line)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print(show(lines))


if __name__ == "__main__":
    main()
