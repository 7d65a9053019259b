"""What follows from edits, without and with the edits that rules derive from them.

    python benchmarks/lab_entailment.py  # 50 edits, lab/gptneo, memit
    python benchmarks/lab_entailment.py --model lab/qwen3 --edits 20 --set weight=100.0

The edits are put into a ledger and built; then they are expanded by the lab's rules, with the
model's own answers for what no edit says, all that is proposed is accepted, and the ledger is
built again. Both patches are asked the same: the edits, their rephrasings, what should follow
(by exact match of the whole greedy answer), what should stay. Where two edits meet (A marries B,
and another moves B to Rome), what one of them changes is no longer asked for the other.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from _shapes import load as machine_load

import emend
from emend.edits import Edit
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits, without_edited
from emend.lab.hops import subquestion
from emend.lab.language import RELATION_BY_NAME
from emend.ledger import Built, Expansion, Ledger, build, expand, lab_rules
from emend.metrics import Report

ROWS = {
    "reliability": ("reliability", None),
    "generalization": ("generalization", None),
    "portability": ("portability", None),
    "  subject alias": ("portability", "subject_alias"),
    "  reverse relation": ("portability", "reverse_relation"),
    "  one hop": ("portability", "one_hop"),
    "locality": ("locality", None),
    "  relation specificity": ("locality", "relation_specificity"),
    "  neighborhood": ("locality", "neighborhood"),
    "  forgetfulness": ("locality", "forgetfulness"),
    "  distracting": ("locality", "distracting"),
}


def meeting(edits: Sequence[Edit]) -> list[Edit]:
    """The edits without the probes that ask for what another of them changes."""
    world, changed = shipped_world(), Counter[tuple[str, str]]()
    for edit in edits:
        changed.update(_changes(edit))
    left: list[Edit] = []
    for edit in without_edited(edits):
        own = Counter(_changes(edit))
        middle = RELATION_BY_NAME[str(edit.relation)].phrase.format(edit.subject)
        gone = {
            f"Question: {subquestion(RELATION_BY_NAME[onward.relation], middle)} Answer:"
            for onward in world.facts_of(edit.target)
            if (changed - own)[onward.subject, onward.relation]
        }
        back = RELATION_BY_NAME[str(edit.relation)].inverse
        taken = back is not None and (changed - own)[edit.target, back]
        probes = [
            probe
            for probe in edit.probes
            if probe.prompt not in gone and not (taken and probe.group == "reverse_relation")
        ]
        left.append(replace(edit, probes=tuple(probes)))
    return left


def _changes(edit: Edit) -> set[tuple[str, str]]:
    """Subject and relation of the facts that an edit changes: its own, and the reverse ones."""
    found = {(edit.subject, str(edit.relation))}
    back = RELATION_BY_NAME[str(edit.relation)].inverse
    if back is not None:
        found |= {(edit.target, back), (str(edit.original), back)}
    return found


def measured(model: Any, tokenizer: Any, built: Built, edits: Sequence[Edit]) -> Report:
    """What a patch does to the edits and their probes."""
    names = ["reliability", "generalization", "portability", "locality"]
    with built.patch.applied(model):
        return emend.evaluate(model, tokenizer, edits, metrics=names)


def value(report: Report, metric: str, group: str | None) -> str:
    """A number of a report as text."""
    entry = report.summary[metric]
    found = entry if group is None else entry["groups"].get(group, {})
    return "-" if found.get("after") is None else f"{found['after']:.3f}"


def tell_wrong(report: Report, most: int) -> None:
    """Print what should follow and did not."""
    for record in report.records:
        matched = record["protocols"].get("exact_match", {}).get("after")
        if record["metric"] == "portability" and not matched and most > 0:
            most -= 1
            said = record["text_after"].strip()
            print(f"  {record['group']:16} {record['prompt']} {record['answers']}, said {said!r}")


def tell(found: Expansion) -> None:
    """Print how many edits were derived by each rule, and why others were not."""
    rules = Counter(each.rule for each in found.derived)
    print(f"{len(found.derived)} edits follow: {', '.join(f'{n} {r}' for r, n in rules.items())}")
    print(f"{len(found.skipped)} were left out, e.g.:")
    for one in found.skipped[:5]:
        print(f"  {one.text} {one.target or '?'}: {one.reason}")


def main() -> None:
    """Build without and with what follows, and print both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--method", default="memit")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong answers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: ast.literal_eval(text) for name, text in (s.split("=", 1) for s in given.set)}
    settings |= {"method": given.method}
    model, tokenizer = emend.load(given.model)
    edits = meeting(draw_edits(shipped_world(), given.edits, given.seed))
    with TemporaryDirectory() as directory, Ledger.create(Path(directory) / "facts.db") as ledger:
        ledger.add(edits)
        plain = build(ledger, model, tokenizer, **settings)
        without = measured(model, tokenizer, plain, edits)
        found = expand(ledger, lab_rules(), model, tokenizer, accept=True)
        tell(found)
        closed = build(ledger, model, tokenizer, **settings)
        expanded = measured(model, tokenizer, closed, edits)
    tell_wrong(expanded, given.wrong)
    print(
        f"\n{given.model}, {given.method}, {len(edits)} edits, seed {given.seed}; {machine_load()}"
    )
    print("| | without | with what follows |\n|---|---|---|")
    for row, (metric, group) in ROWS.items():
        print(f"| {row} | {value(without, metric, group)} | {value(expanded, metric, group)} |")
    print(f"| edits in the patch | {len(plain.build.edits)} | {len(closed.build.edits)} |")
    print(f"| seconds to build | {plain.seconds:.0f} | {closed.seconds:.0f} |")


if __name__ == "__main__":
    main()
