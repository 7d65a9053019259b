"""How well can a layer of a lab model tell all subjects apart? A bound on editing very many facts.

    python benchmarks/lab_keys.py lab/gptneo lab/qwen3 [--edited 497] [--layers 0 1 2]

Random vectors are to be written at some subjects, and nothing at the others, by the one linear
change of the down-projection that does it best over many contexts (ridge regression on the keys,
with nothing else to preserve). Printed is how much of a vector's length is missing, on average, at
edited subjects, and how much is there at the others, in contexts that were not used.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import torch
from torch import Tensor

import emend
from emend.editing.layerwise import LayerwiseReplay
from emend.lab import shipped_world
from emend.lab.language import RELATIONS
from emend.models import ModelView

HELD_OUT, RIDGE, WIDTH = 10, 1e-4, 64


def contexts(seed: int) -> list[str]:
    """What may stand before a subject: the beginnings of statements, in random order; "" first."""
    starts = {text.split("{}")[0] for relation in RELATIONS for text in relation.statements}
    found = sorted(starts - {""})
    random.Random(seed).shuffle(found)
    return ["", *found]


def keys(
    view: ModelView, tokenizer: Any, names: list[str], before: list[str], layer: int
) -> Tensor:
    """(names * contexts, inner) float64, keys at the last token of each name."""
    rows = [tokenizer(text + name).input_ids for name in names for text in before]
    return LayerwiseReplay(view, rows, layer, layer).read().keys.double()


def missing(
    view: ModelView, tokenizer: Any, layer: int, edited: int, seed: int
) -> tuple[float, float]:
    """Share of a vector missing at edited subjects, and share there at others, held out."""
    names = [name for _, name in shipped_world().subjects()]
    chosen = set(random.Random(seed).sample(names, edited))
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(names), WIDTH, generator=generator, dtype=torch.float64)
    there = torch.tensor([name in chosen for name in names])
    vectors = vectors * there[:, None]
    texts = contexts(seed)
    used, held = texts[:-HELD_OUT], texts[-HELD_OUT:]
    known = keys(view, tokenizer, names, used, layer)
    gram = known.T @ known
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    change = torch.linalg.solve(gram, known.T @ vectors.repeat_interleave(len(used), 0))
    asked = keys(view, tokenizer, names, held, layer)
    left = (vectors.repeat_interleave(HELD_OUT, 0) - asked @ change).norm(dim=1) / WIDTH**0.5
    at = there.repeat_interleave(HELD_OUT)
    return float(left[at].mean()), float(left[~at].mean())


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="lab/gptneo, lab/qwen3")
    parser.add_argument("--edited", type=int, default=497, help="subjects; 1,000 edits are of 497")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | layer | missing at edited subjects | there at others |")
    print("|---|---:|---:|---:|")
    for name in arguments.models:
        model, tokenizer = emend.load(name)
        for layer in arguments.layers:
            one, other = missing(
                ModelView(model), tokenizer, layer, arguments.edited, arguments.seed
            )
            print(f"| `{name}` | {layer} | {one:.2f} | {other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
