"""The ledger on a lab model: any history of the same edits makes the same patch.

    python benchmarks/lab_ledger.py                     # 300 edits in 30 builds, 100 reverted
    python benchmarks/lab_ledger.py --edits 30 --builds 3 --reverted 10 --superseded 2
    python benchmarks/lab_ledger.py --set weight=1200.0

Edits are added in random order, part by part, with a build after each; then some are reverted and
some superseded by others of the same statement. The patch of what remains is compared with that of
a fresh ledger that never held anything else: changes of the weights, answers to every probe. What
was reverted is asked of the patched model and of the base. Then one more edit is reverted, and the
time of that build compared with that of the fresh one.
"""

from __future__ import annotations

import argparse
import ast
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _shapes import load as machine_load

import emend
from emend.edits import Edit
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits
from emend.ledger import Built, Ledger, build
from emend.models import generate
from emend.patches import WeightPatch


def superseding(edit: Edit, others: Sequence[Edit], generator: random.Random) -> Edit:
    """Another edit of the same statement, with another target of the same relation."""
    targets = sorted({one.target for one in others if one.relation == edit.relation})
    wanted = [target for target in targets if target not in (edit.target, edit.original)]
    return Edit(edit.prompt, edit.subject, generator.choice(wanted), relation=edit.relation)


def history(
    ledger: Ledger, model: Any, tokenizer: Any, settings: dict[str, Any], sizes: argparse.Namespace
) -> tuple[Built, list[Edit]]:
    """Live through a history; the last build, and what was reverted."""
    generator = random.Random(sizes.seed)
    edits = draw_edits(shipped_world(), sizes.edits, sizes.seed)
    generator.shuffle(edits)
    step = -(-len(edits) // sizes.builds)
    for start in range(0, len(edits), step):
        ledger.add(edits[start : start + step])
        built = build(ledger, model, tokenizer, **settings)
        print(
            f"build {start // step + 1}: {built.solved} solved, {built.seconds:.1f} s", flush=True
        )
    gone = generator.sample(edits, sizes.reverted)
    ledger.revert(*[edit.id for edit in gone])
    left = [edit for edit in edits if edit not in gone]
    # Superseded where the relation has other targets, all different from the two known.
    replaced = [e for e in left if len({o.target for o in edits if o.relation == e.relation}) > 2]
    for edit in generator.sample(replaced, sizes.superseded):
        ledger.add(superseding(edit, edits, generator), supersede=True)
    return build(ledger, model, tokenizer, **settings), gone


def difference(left: WeightPatch, right: WeightPatch) -> float:
    """The largest relative difference of the changes of one module."""
    worst = 0.0
    for module in left.factors:
        one, other = left.delta(module).double(), right.delta(module).double()
        worst = max(worst, float((one - other).norm() / other.norm()))
    return worst


def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """What is said to each prompt."""
    return generate(model, tokenizer, prompts, max_new_tokens=6, stop=[".", "\n"])


def alike(edit: Edit, before: str, after: str) -> bool:
    """Whether a fact is answered as by the base, whatever a model goes on to say after it."""
    fact = str(edit.original)
    if before.strip().startswith(fact):
        return after.strip().startswith(fact)
    return before == after


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--method", default="memit")
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--builds", type=int, default=30)
    parser.add_argument("--reverted", type=int, default=100)
    parser.add_argument("--superseded", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    sizes = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(sizes.model)
    given = (text.split("=", 1) for text in sizes.set)
    settings = {"method": sizes.method, **{n: ast.literal_eval(value) for n, value in given}}
    with TemporaryDirectory() as directory:
        path = Path(directory)
        with Ledger.create(path / "lived.db") as lived, Ledger.create(path / "fresh.db") as fresh:
            last, gone = history(lived, model, tokenizer, settings, sizes)
            fresh.add(lived.active())
            whole = build(fresh, model, tokenizer, **settings)
            remaining = lived.active()
            print(
                f"\n{len(remaining)} edits remain; the fresh build took {whole.seconds:.1f} s",
                flush=True,
            )
            print(f"same hash: {last.build.patch_hash == whole.build.patch_hash}")
            print(f"largest relative difference: {difference(last.patch, whole.patch):.2e}")
            probes = [probe.prompt for edit in remaining for probe in edit.probes]
            prompts = [*(edit.text for edit in remaining), *dict.fromkeys(probes)]
            reverted = [edit.text for edit in gone]
            before = answers(model, tokenizer, reverted)
            with last.patch.applied(model):
                here, after = (answers(model, tokenizer, each) for each in (prompts, reverted))
            with whole.patch.applied(model):
                there = answers(model, tokenizer, prompts)
            same = sum(a == b for a, b in zip(here, there, strict=True))
            print(f"same answers to {same} of {len(prompts)} prompts and probes")
            kept = sum(map(alike, gone, before, after))
            verbatim = sum(a == b for a, b in zip(before, after, strict=True))
            print(
                f"reverted facts answered as by the base: {kept} of {len(gone)} "
                f"({verbatim} to the last word of what is said after the answer)"
            )
            lived.revert(remaining[0].id)
            started = time.perf_counter()
            one = build(lived, model, tokenizer, **settings)
            seconds = time.perf_counter() - started
            print(
                f"after one revert: {one.solved} solved, {seconds:.1f} s, "
                f"{whole.seconds / seconds:.1f} times quicker than from nothing"
            )
            lived.revert(*[edit.id for edit in lived.active()])
            empty = build(lived, model, tokenizer, **settings)
            print(f"all reverted: {len(empty.patch.factors)} changes left")
            print(f"{sizes.model}, {sizes.method} {sizes.set}, seed {sizes.seed}; {machine_load()}")


if __name__ == "__main__":
    main()
