"""Single edits of lab facts, each alone on the clean model: what a method does, measured.

    python benchmarks/lab_edits.py lab/gptneo lab/qwen3 [--method rome] [--limit 100] [--seed 1]

Prints one table in Markdown; values are shares by exact match of the whole greedy answer.
"""

from __future__ import annotations

import argparse

import emend
from emend import datasets, metrics

COLUMNS = {
    "reliability": ("reliability", None),
    "generalization": ("generalization", None),
    "neighborhood": ("locality", "neighborhood"),
    "relation specificity": ("locality", "relation_specificity"),
    "forgetfulness": ("locality", "forgetfulness"),
    "distracting": ("locality", "distracting"),
    "subject alias": ("portability", "subject_alias"),
    "reverse relation": ("portability", "reverse_relation"),
    "one hop": ("portability", "one_hop"),
}


def measure(name: str, method: str, limit: int, seed: int) -> tuple[dict[str, float | None], float]:
    """Edit and measure one model.

    Returns:
        Values after the edit by column, and seconds per edit.
    """
    model, tokenizer = emend.load(name)
    edits = datasets.load("lab", limit=limit, seed=seed)
    patch = emend.edit(model, tokenizer, edits, method=method)
    names = ["reliability", "generalization", "portability", "locality"]
    summary = metrics.evaluate_each(model, tokenizer, edits, patch, metrics=names).summary
    values: dict[str, float | None] = {}
    for column, (metric, group) in COLUMNS.items():
        entry = summary[metric] if group is None else summary[metric]["groups"].get(group, {})
        values[column] = entry.get("after")
    return values, patch.timing["per_edit"]


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="lab/gptneo or lab/qwen3")
    parser.add_argument("--method", default="rome", help="a method whose edits can be split")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| model |", " | ".join(COLUMNS), "| seconds per edit |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    for name in arguments.models:
        values, seconds = measure(name, arguments.method, arguments.limit, arguments.seed)
        shown = ["-" if value is None else f"{value:.3f}" for value in values.values()]
        print(f"| `{name}` |", " | ".join(shown), f"| {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
