"""Measure edits of a real model on KnowEdit's counterfactual part (Zhang et al. 2024, 2401.01286).

    python benchmarks/real/knowedit.py --records 700:720 --method rome,grace,ft
    python benchmarks/real/knowedit.py --model gemma3-270m --records 700:720 --method rome

Each edit alone, by `emend.evaluate`, which knows where a prompt ends, as memories need. Records 0
to 699 of `train_cf.json` are for choosing settings, 700 and up for reporting. Teacher-forced share
of tokens, as published: reliability, portability (alias, reasoning, logic), and of locality
(relation specificity, forgetfulness) the share that is as before; `generated` is the share of edits
whose target is generated. What was measured is kept in --output_path, one edit a line, and a run
that was killed goes on after it. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from counterfact import SHARED, kept

import emend
from emend.models import ensure_start

MEASURES = ("reliability", "portability", "locality")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="rome", help="names with commas between")
    parser.add_argument("--records", default="700:720", help="FIRST:LAST of those that can be read")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--set", action="append", default=[], help="a setting: NAME=JSON")
    parser.add_argument("--output_path", type=Path, default=Path("results/knowedit.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, given.records.split(":"))
    edits = emend.read_edits(given.data / "knowedit" / "train_cf.json")[first:last]
    settings = {name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}
    model, tokenizer = emend.load(given.model, dtype="float32")
    ensure_start(model, tokenizer)
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    done = kept(given.output_path)
    for method in given.method.split(","):
        rows: list[dict[str, Any]] = []
        for edit in edits:
            key = [given.model, method, given.set, edit.id]
            found = done.get(json.dumps(key))
            if found is None:
                found = [measured(model, tokenizer, edit, method, settings)]
                with given.output_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "rows": found}) + "\n")
            rows += found
        show(method, rows)


def measured(
    model: Any, tokenizer: Any, edit: emend.Edit, method: str, settings: dict[str, Any]
) -> dict[str, float]:
    """Make one edit and give the values of each group after it."""
    began = time.process_time()
    patch = emend.edit(model, tokenizer, [edit], method=method, **settings)
    found = {"seconds": time.process_time() - began}
    with patch.applied(model):
        report = emend.evaluate(model, tokenizer, [edit], metrics=MEASURES)
    reliability = report.summary["reliability"]["protocols"]
    found["reliability"] = reliability["teacher_forced"]["after"]
    found["generated"] = reliability["exact_match"]["after"]
    for name in ("portability", "locality"):
        for group, values in report.summary[name].get("groups", {}).items():
            found[group] = values["protocols"]["teacher_forced"]["after"]
    return found


def show(label: str, rows: Sequence[dict[str, float]]) -> None:
    """Print the means of all quantities, each with the number of edits that have it."""
    names = sorted({name for row in rows for name in row})
    cells = [[row[name] for row in rows if row.get(name) is not None] for name in names]
    shown = zip(names, cells, strict=True)
    print(
        f"{label}: "
        + ", ".join(f"{name} {sum(of) / len(of):.3f} ({len(of)})" for name, of in shown if of),
        flush=True,
    )


if __name__ == "__main__":
    main()
