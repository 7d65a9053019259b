"""The same edits in one batch, in many, and shuffled: how far apart are the built weights?

    python benchmarks/lab_order.py [--model lab/gptneo] [--limit 200] [--batch 10] [--steps 20]

Values are optimised again each time, except that AlphaEdit takes those of MEMIT's published form
in the same sequence: both optimise the same. Prints one table in Markdown with the largest
difference over all edited matrices: relative to the change's own norm, and to that of the built
weights.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any

import emend
from emend import datasets
from emend.edits import Edit
from emend.methods import registry
from emend.patches import WeightPatch

FAMILIES = (("memit", "alphaedit"), ("emmet",))
"""Methods of one family take the values that the first of it found."""


def made(
    model: Any,
    tokenizer: Any,
    family: Sequence[str],
    batches: Sequence[Sequence[Edit]],
    settings: dict[str, Any],
) -> dict[str, WeightPatch]:
    """Each method's patch of all batches, one after another; the first alone optimises values."""
    patches: dict[str, WeightPatch] = {}
    for name in family:
        patch = patches.get(family[0])
        for batch in [batches[-1]] if patch else batches:
            form = {} if name == "alphaedit" else {"original": True}
            method = registry().get(name)
            patch = method.edit(model, tokenizer, batch, previous=patch, **form, **settings)
        assert isinstance(patch, WeightPatch)
        patches[name] = patch
    return patches


def differences(model: Any, one: WeightPatch, other: WeightPatch) -> str:
    """Largest difference of a matrix, relative to its change and to what is built."""
    of_change, of_built = 0.0, 0.0
    for name in one.factors:
        change = one.delta(name)
        apart = float((change - other.delta(name)).norm())
        of_change = max(of_change, apart / float(change.norm()))
        built = model.get_submodule(name).weight.detach() + change
        of_built = max(of_built, apart / float(built.norm()))
    return f"{of_change:.1e} ({of_built:.1e})"


def main() -> None:
    """Build three times by each family, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of the optimisation")
    arguments = parser.parse_args()
    model, tokenizer = emend.load(arguments.model)
    edits = datasets.load("lab", limit=arguments.limit, seed=arguments.seed)
    shuffled = list(edits)
    random.Random(0).shuffle(shuffled)
    size = arguments.batch
    parts = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    settings = {} if arguments.steps is None else {"steps": arguments.steps}
    print(f"| method | {len(parts)} batches of {size}, shuffled | one batch, shuffled |")
    print("|---|---:|---:|")
    for family in FAMILIES:
        whole = made(model, tokenizer, family, [edits], settings)
        batched = made(model, tokenizer, family, parts, settings)
        other = made(model, tokenizer, family, [shuffled], settings)
        for name in family:
            found = [differences(model, whole[name], each[name]) for each in (batched, other)]
            print(f"| `{name}` | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
