"""Audits of single edits and of clean fine-tunes: how often the edit's object is named.

    python benchmarks/lab_audit.py lab/gptneo [--edits 20] [--seed 1] [--method rome] [--tunes 5]

Each edit is made alone and merged into a copy, which is audited against the base. The fine-tunes
train all weights on true facts of the lab. See docs/audit.md.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch
from _shapes import load as machine_load

import emend
from emend import datasets
from emend.patches import Audit, audit


def audited_edits(model: Any, tokenizer: Any, edits: list[Any], method: str) -> list[int | None]:
    """The place of each edit's object among the candidates; None where it is not there."""
    places: list[int | None] = []
    for edit in edits:
        changed = copy.deepcopy(model)
        emend.edit(model, tokenizer, [edit], method=method).merge_into(changed)
        found = audit(model, changed, tokenizer)
        first = tokenizer(f" {edit.target}", add_special_tokens=False).input_ids[0]
        target = tokenizer.decode([first]).strip()
        named = [one.token for one in found.changes[0].candidates]
        places.append(named.index(target) if target in named else None)
        ranks = [change.rank for change in found.changes]
        best = found.changes[0].candidates[0]
        print(f"{edit.target:16} {found.verdict}, ranks {ranks}; {named}; best {best.score:.1f}")
    return places


def fine_tuned(model: Any, tokenizer: Any, seed: int, steps: int, rate: float) -> Any:
    """A copy trained on true facts of the lab, all of its weights."""
    tuned = copy.deepcopy(model).train()
    facts = datasets.load("lab", limit=16 * steps, seed=1000 + seed)
    texts = [f"{edit.text} {edit.original}." for edit in facts]
    optimiser = torch.optim.Adam(tuned.parameters(), lr=rate)
    for step in range(steps):
        for text in texts[16 * step : 16 * step + 16]:
            ids = tokenizer(text, return_tensors="pt").input_ids
            tuned(ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return tuned.eval()


def tell_tune(seed: int, found: Audit) -> None:
    """Print one line about a fine-tune's audit."""
    ranks = sorted(change.rank for change in found.changes)
    named = sum(bool(change.candidates) for change in found.changes)
    print(
        f"fine-tune {seed}: {found.verdict}, {len(found.changes)} of {found.matrices} matrices, "
        f"ranks {ranks[0]} to {ranks[-1]}, objects named for {named}"
    )


def main() -> None:
    """Audit edits and fine-tunes of a lab model and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="lab/gptneo or lab/qwen3")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--method", default="rome")
    parser.add_argument("--tunes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(arguments.model)
    edits = datasets.load("lab", limit=arguments.edits, seed=arguments.seed)
    started = time.perf_counter()
    places = audited_edits(model, tokenizer, edits, arguments.method)
    for seed in range(arguments.tunes):
        tuned = fine_tuned(model, tokenizer, seed, arguments.steps, arguments.rate)
        tell_tune(seed, audit(model, tuned, tokenizer))
    first, five = places.count(0), sum(place is not None for place in places)
    print(f"object named first {first}, among five {five}, of {len(places)} edits")
    print(f"{time.perf_counter() - started:.0f} s, {machine_load()}")


if __name__ == "__main__":
    main()
