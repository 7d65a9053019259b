"""How far Adam and L-BFGS come down in how many steps: the value search's loss against steps.

    python benchmarks/search_steps.py                           # some 5 CPU minutes
    python benchmarks/search_steps.py --models lab/qwen3 --edits 40

At MEMIT's last layer of the lab's models: with 25 steps and the published losses, and with the 80
steps and preserved prompts that the models recommend. A random model would tell nothing here: no
value makes it say anything. A step is one pass forward and one back, whichever takes it. "reached
by" is the mean over edits of the first step at which L-BFGS has the loss that Adam ends with, as a
part of Adam's steps; edits of which it never has are counted.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

import emend
from emend import datasets
from emend.editing import Search, SearchSettings, Session, optimise_values
from emend.edits import Edit
from emend.models import ModelView

LAYER = 3
MARKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 40, 80)


def losses(
    view: ModelView, tokenizer: Any, edits: Sequence[Edit], settings: SearchSettings
) -> list[list[float]]:
    """The loss of each edit at each step; nothing stops early."""
    settings = dataclasses.replace(settings, stop_below=-1.0)
    found = optimise_values(view, tokenizer, edits, ("{}",), LAYER, settings, site="block")
    return [list(value.losses) for value in found]


def compare(
    name: str, view: ModelView, tokenizer: Any, edits: Sequence[Edit], settings: SearchSettings
) -> None:
    """Print both columns for one model and one set of settings."""
    adam, lbfgs = (
        losses(view, tokenizer, edits, dataclasses.replace(settings, optimizer=optimizer))
        for optimizer in ("adam", "lbfgs")
    )
    print(f"\n{name}, {settings.steps} steps, {len(edits)} edits\n")
    print("| step | Adam | L-BFGS |\n|---:|---:|---:|")
    for mark in [mark for mark in MARKS if mark <= settings.steps]:
        means = [sum(one[mark - 1] for one in each) / len(each) for each in (adam, lbfgs)]
        print(f"| {mark} | {means[0]:.3f} | {means[1]:.3f} |")
    steps: list[int] = []
    for one, other in zip(adam, lbfgs, strict=True):
        steps += [n for n, loss in enumerate(other, 1) if loss <= one[-1]][:1]
    part = sum(steps) / max(1, len(steps)) / settings.steps
    print(f"\nreached by {part:.2f} of the steps; never by {len(adam) - len(steps)}", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lab/gptneo", "lab/qwen3"])
    parser.add_argument("--edits", type=int, default=20, help="edits of a lab model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.models:
        model, tokenizer = emend.load(name)
        view, edits = ModelView(model), datasets.load("lab", limit=given.edits, seed=1)
        session = Session(model, tokenizer, edits)
        own = {"norm_penalty": 0.5, "preserve_factor": 0.3, "share_subject": True}
        for kind in ("published", "default"):
            settings = session.search_settings(
                Search(), published=kind == "published", site="block", **own
            )
            compare(f"{name}, {kind}", view, tokenizer, edits, settings)


if __name__ == "__main__":
    main()
