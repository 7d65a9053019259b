"""Write the model card of a lab model: recall, capabilities and causal trace, all measured now.

    python benchmarks/lab_card.py lab/gptneo --write

Prints the card; `--write` puts card.json and README.md beside the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from lab_trace import average_effects

from emend import lab
from emend.bench.lab_card import measure
from emend.models import load

README = """---
license: mit
language: en
tags: [knowledge-editing, synthetic]
---
# {name}

A {arch} model of {millions:.1f} million parameters that knows the closed world of emend's lab
(seed {seed}: {facts} facts about {entities} people, companies, works, cities and countries), for
learning, testing and comparing knowledge editing offline. Made by

    {command}

Numbers from the lab are about the lab. Measured by `python benchmarks/lab_card.py {name} --write`.

## What it can do

Exact match of every token of the greedy answer, unless a row says otherwise.

| what | share |
|---|---|
{abilities}

## Where its facts are

Average indirect effect of restoring the output of one block at one token, over {traced} known facts
(total effect {total:.3f}). In the first half of the blocks the subject's last token counts
{ratio} times as much as any other; in the last quarter the leader is `{leader}`.

| token | {blocks} |
|---|{rules}|
{trace}
"""


def make_card(name: str, facts: int) -> dict[str, Any]:
    """Measure everything that the card says."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    model, tokenizer = load(name)
    world = lab.shipped_world()
    directory = lab.path(name.removeprefix("lab/"))
    config = json.loads((directory / "training_config.json").read_text())
    return {
        "name": name,
        "arch": config["arch"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "command": f"emend lab train --arch {config['arch']} --seed {config['seed']} "
        f"--output_path src/emend/lab/weights/{config['arch']}",
        "training": config,
        "world": {"facts": len(world.facts), "entities": sum(map(len, world.entities.values()))},
        "abilities": measure(model, tokenizer, world),
        "trace": average_effects(name, model, tokenizer, facts, draws=5),
    }


def readme(card: dict[str, Any]) -> str:
    """The card as a page for people."""
    trace = card["trace"]
    table: dict[str, list[float]] = trace["indirect_effect_by_block"]
    depth = len(next(iter(table.values())))
    return README.format(
        name=card["name"],
        arch=card["arch"],
        millions=card["parameters"] / 1e6,
        seed=card["training"]["seed"],
        facts=card["world"]["facts"],
        entities=card["world"]["entities"],
        command=card["command"],
        abilities="\n".join(
            f"| {key.replace('_', ' ')} | {value:.3f} |" for key, value in card["abilities"].items()
        ),
        traced=trace["facts"],
        total=trace["total_effect"],
        ratio=trace["first_half_ratio"],
        leader=trace["last_quarter_leader"],
        blocks=" | ".join(f"block {block}" for block in range(depth)),
        rules="|".join(["---"] * depth),
        trace="\n".join(
            f"| {role.replace('_', ' ')} | " + " | ".join(f"{value:.3f}" for value in row) + " |"
            for role, row in table.items()
        ),
    )


def main() -> None:
    """Measure a lab model and print, or write, its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="lab/gptneo or lab/qwen3")
    parser.add_argument("--facts", type=int, default=200, help="facts to trace")
    parser.add_argument("--write", action="store_true", help="write card.json and README.md")
    arguments = parser.parse_args()
    card = make_card(arguments.model, arguments.facts)
    print(json.dumps(card, indent=1))
    if arguments.write:
        directory: Path = lab.path(arguments.model.removeprefix("lab/"))
        (directory / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        (directory / "README.md").write_text(readme(card))


if __name__ == "__main__":
    main()
