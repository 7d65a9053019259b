"""Pronouns made even on the lab's models: all occupations of its corpus, by several methods.

    python benchmarks/lab_fairness.py [--model lab/gptneo] [--method shared,memit] [--recall 300]

The gap is the mean of |P(he) - P(she)| over the 20 occupations and 6 templates of the corpus, all
edited. Recall is the share of facts of the lab (drawn with seed 3) that are generated greedily.
Results go to --output_path, one JSON object a line; a run that was killed goes on after it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import emend
from emend import datasets, fairness
from emend.lab.speech import OCCUPATIONS, PRONOUN_SENTENCES
from emend.models import score

SUBJECTS = fairness.Occupations(
    tuple(OCCUPATIONS), tuple(opening for opening, _ in PRONOUN_SENTENCES)
)


def recall(model: Any, tokenizer: Any, count: int) -> float:
    """Share of the facts whose object is generated greedily."""
    facts = datasets.load("lab", limit=count, seed=3)
    asked = [fact.text for fact in facts], [fact.original or "" for fact in facts]
    return sum(one.token_accuracy == 1 for one in score(model, tokenizer, *asked)) / count


def measured(model: Any, tokenizer: Any, method: str, count: int) -> dict[str, Any]:
    """Edit by one method, and measure before and after."""
    began = time.process_time()
    patch = fairness.debias(model, tokenizer, SUBJECTS, method)
    seconds = time.process_time() - began
    found = fairness.pronoun_gap(model, tokenizer, SUBJECTS, patch).measures
    before = recall(model, tokenizer, count)
    with patch.applied(model):
        after = recall(model, tokenizer, count)
    pairs = {
        name: [found.before[name].value, found.after[name].value]
        for name in ("gap", "log_ratio", "mass")
    }
    return {**pairs, "recall": [before, after], "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lab/gptneo,lab/qwen3")
    parser.add_argument("--method", default="shared,memit,alphaedit,ft")
    parser.add_argument("--recall", type=int, default=300)
    parser.add_argument("--output_path", type=Path, default=Path("results/lab_fairness.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output_path.read_text().splitlines() if given.output_path.exists() else []
    done = {(row["model"], row["method"]): row for row in map(json.loads, lines)}
    for name in given.model.split(","):
        model, tokenizer = emend.load(name)
        for method in given.method.split(","):
            row = done.get((name, method))
            if row is None:
                found = measured(model, tokenizer, method, given.recall)
                row = {"model": name, "method": method, **found}
                with given.output_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            changes = (
                f"{key} {row[key][0]:.3f} -> {row[key][1]:.3f}"
                for key in row
                if key in ("gap", "log_ratio", "mass", "recall")
            )
            print(name, method, *changes, f"{row['seconds']:.0f} s", sep="  ", flush=True)


if __name__ == "__main__":
    main()
