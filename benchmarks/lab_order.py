"""The same edits in one batch, in many, and shuffled: how far apart are the built weights?

    python benchmarks/lab_order.py [--model lab/gptneo] [--limit 200] [--batch 10] [--steps 80]
        [--chunk 6] [--optimizer lbfgs]

Values are sought anew each time (in other company, so that sums round otherwise), except that
AlphaEdit takes those that MEMIT found in the same sequence: both seek the same. Prints one table in
Markdown with the largest difference over all edited matrices: relative to the change's own norm,
and to that of the built weights. The lab's models recommend ``chunk=1``: every value is sought
alone, so that sums round alike in any company; with ``--chunk 6`` they do not. All is solved layer
by layer: a fit of all layers, which takes minutes in each of the batches, sorts edits by id too.
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

NEVER = 1_000_000
FAMILIES: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("memit", "alphaedit"), {"fit_from": NEVER}),
    (("emmet",), {}),
)
"""Methods of one family take the values that the first of it found; and their settings."""


def made(
    model: Any,
    tokenizer: Any,
    family: Sequence[str],
    batches: Sequence[Sequence[Edit]],
    settings: dict[str, Any],
) -> dict[str, WeightPatch]:
    """Each method's patch of all batches, one after another; the first alone seeks values."""
    patches: dict[str, WeightPatch] = {}
    for name in family:
        patch = patches.get(family[0])
        for batch in [batches[-1]] if patch else batches:
            patch = registry().get(name).edit(model, tokenizer, batch, previous=patch, **settings)
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
    parser.add_argument(
        "--steps", type=int, help="of the search; by default what the model recommends"
    )
    parser.add_argument("--chunk", type=int, help="how many values are sought together")
    parser.add_argument("--optimizer", help="adam or lbfgs")
    arguments = parser.parse_args()
    model, tokenizer = emend.load(arguments.model)
    edits = datasets.load("lab", limit=arguments.limit, seed=arguments.seed)
    shuffled = list(edits)
    random.Random(0).shuffle(shuffled)
    size = arguments.batch
    parts = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    given = {name: getattr(arguments, name) for name in ("steps", "chunk", "optimizer")}
    settings = {name: value for name, value in given.items() if value is not None}
    print(f"| method | {len(parts)} batches of {size}, shuffled | one batch, shuffled |")
    print("|---|---:|---:|")
    for family, own in FAMILIES:
        every = {**settings, **own}
        whole = made(model, tokenizer, family, [edits], every)
        batched = made(model, tokenizer, family, parts, every)
        other = made(model, tokenizer, family, [shuffled], every)
        for name in family:
            found = [differences(model, whole[name], each[name]) for each in (batched, other)]
            print(f"| `{name}` | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
