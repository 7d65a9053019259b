"""Where the lab's models keep their facts: average indirect effects by causal tracing.

    python benchmarks/lab_trace.py lab/gptneo [--facts 200] [--window 3] [--output_path FILE]

Prints the average indirect effect of each kind of restoration, by role and block, with its interval
of 95%, and how the approximation by gradients ranks the same effects. See docs/where-facts-live.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from _shapes import load as machine_load
from _shapes import rank_correlation

from emend import lab
from emend.locate import KINDS, AverageEffects, trace_many
from emend.models import load

SPARE = 3
"""Facts drawn for each that is to be traced: not all are known in the wording drawn."""


def questions(seed: int = 1) -> Iterator[tuple[str, str, str]]:
    """Facts of the lab's world in random order, each in one of the wordings it was seen in."""
    generator = random.Random(f"trace-{seed}")
    pool = list(lab.shipped_world().facts.values())
    generator.shuffle(pool)
    for fact in pool:
        yield generator.choice(fact.statements(seen=True)), fact.subject, fact.object


def trace_lab(model: Any, tokenizer: Any, facts: int, **settings: Any) -> AverageEffects:
    """Trace so many facts of the lab that the model knows."""
    drawn = [question for question, _ in zip(questions(), range(SPARE * facts), strict=False)]
    return trace_many(model, tokenizer, drawn, limit=facts, **settings)


def average_effects(
    name: str, model: Any, tokenizer: Any, facts: int, draws: int
) -> dict[str, Any]:
    """What a lab model's card says of its trace."""
    found = trace_lab(model, tokenizer, facts, draws=draws)
    effects = found.by_role("state")
    table = {
        role: [round(value, 4) for value in mean.mean.tolist()] for role, mean in effects.items()
    }
    return {
        "model": name,
        "facts": len(found.traces),
        "total_effect": round(found.total[0], 4),
        "indirect_effect_by_block": table,
        **verdict(table, found.traces[0].effects["state"].shape[1]),
    }


def verdict(table: dict[str, list[float]], depth: int) -> dict[str, Any]:
    """How the subject's last token stands to the others in the first half, and who takes over."""
    early = {role: sum(row[: depth // 2]) / (depth // 2) for role, row in table.items()}
    late = {role: sum(row[-(depth // 4) :]) / (depth // 4) for role, row in table.items()}
    others = max(value for role, value in early.items() if role != "last_subject")
    return {
        "first_half_ratio": round(early["last_subject"] / max(others, 1e-6), 2),
        "last_quarter_leader": max(late, key=lambda role: late[role]),
        "first_half": {role: round(value, 4) for role, value in early.items()},
        "last_quarter": {role: round(value, 4) for role, value in late.items()},
    }


def show(found: AverageEffects) -> None:
    """Print the averages as Markdown tables, in percentage points."""
    for kind in found.settings.kinds:
        print(f"\n{kind.replace('_', ' ')}, percentage points ± 95%")
        for number, (role, mean) in enumerate(found.by_role(kind).items()):
            if number == 0:
                print("| token | facts |", " | ".join(map(str, range(len(mean.mean)))), "|")
                print("|---" * (len(mean.mean) + 2) + "|")
            cells = [
                f"{100 * value:.1f} ± {100 * margin:.1f}"
                for value, margin in zip(mean.mean.tolist(), mean.margin.tolist(), strict=True)
            ]
            print(f"| {role.replace('_', ' ')} | {mean.facts} |", " | ".join(cells), "|")


def ranks(exact: AverageEffects, estimate: AverageEffects, kind: str) -> float:
    """Mean over facts of the rank correlation of exact and approximate effects."""
    found = [
        rank_correlation(one.effects[kind][one.first :], other.effects[kind][other.first :])
        for one, other in zip(exact.traces, estimate.traces, strict=True)
    ]
    return sum(found) / len(found)


def main() -> None:
    """Trace a lab model and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="lab/gptneo or lab/qwen3")
    parser.add_argument("--facts", type=int, default=200)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--window", type=int, default=3, help="layers of MLP and attention")
    parser.add_argument("--output_path", type=Path, help="FILE.json, .png, .svg or .html")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(arguments.model)
    settings = {"draws": arguments.draws, "window": arguments.window}
    started = time.perf_counter()
    found = trace_lab(model, tokenizer, arguments.facts, kinds=KINDS, **settings)
    seconds = time.perf_counter() - started
    total, margin = found.total
    print(f"{arguments.model}: {len(found.traces)} facts, {arguments.draws} draws of noise, ")
    print(f"window of {arguments.window}; {seconds:.0f} s, {machine_load()}")
    print(f"average total effect {100 * total:.1f} ± {100 * margin:.1f} percentage points")
    show(found)
    kinds = ("state", "mlp", "attention")
    estimate = trace_lab(
        model, tokenizer, arguments.facts, kinds=kinds, approximate=True, **settings
    )
    print("\nrank correlation of approximate and exact effects, mean over facts")
    for kind in kinds:
        print(f"{kind:10} {ranks(found, estimate, kind):.3f}")
    if arguments.output_path:
        if arguments.output_path.suffix == ".json":
            arguments.output_path.write_text(json.dumps(found.to_dict(), indent=1) + "\n")
        else:
            from emend.report import write

            write(found, arguments.output_path)


if __name__ == "__main__":
    main()
