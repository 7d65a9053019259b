"""Measure edits of a real model on CounterFact, by a plain evaluator.

    python benchmarks/real/counterfact.py --model smollm2-135m --records 5000:5100 --method rome
    python benchmarks/real/counterfact.py --records 5000:5100 --together --method memit,alphaedit
    python benchmarks/real/counterfact.py --records 0:20 --method rome --set layer=1 --set clamp=6

Records 0 to 4,999 of the file are for choosing settings, 5,000 to 9,999 for reporting. Each edit
alone, or all of them --together. What was measured is kept in --output_path, one JSON object a
line, and a run that was killed goes on after it. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from evaluator import Evaluator, Record, read_records, show

import emend
from emend.models import ensure_start
from emend.models.start import front_ids

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="rome", help="names with commas between")
    parser.add_argument("--records", default="0:20", help="FIRST:LAST of the file")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--together", action="store_true", help="all edits in one patch")
    parser.add_argument("--set", action="append", default=[], help="a setting: NAME=JSON")
    parser.add_argument("--label", default="", help="name of this run in the output")
    parser.add_argument("--output_path", type=Path, default=Path("results/counterfact.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, given.records.split(":"))
    records = read_records(given.data / "counterfact" / "counterfact-train.json", first, last)
    text = (given.data / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    settings = {name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}
    model, tokenizer = emend.load(given.model, dtype="float32")
    ensure_start(model, tokenizer)
    plain = Evaluator(model, tokenizer, front_ids(tokenizer), text if given.together else "")
    plain.prepare(records)
    show("unedited", plain.measure(records))
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    done = kept(given.output_path)
    groups = [records] if given.together else [[record] for record in records]
    for method in given.method.split(","):
        label = given.label or " ".join([method, *given.set])
        rows: list[dict[str, Any]] = []
        for group in groups:
            key = [given.model, label, given.together, [record.case_id for record in group]]
            found = done.get(json.dumps(key))
            if found is None:
                found = measured(plain, model, tokenizer, group, method, settings)
                with given.output_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "rows": found}) + "\n")
            rows += found
        show(label, rows)


def measured(
    plain: Evaluator,
    model: Any,
    tokenizer: Any,
    group: list[Record],
    method: str,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Edit some records at once, and measure each."""
    edits = [
        emend.Edit(
            record.prompt.replace(record.subject, "{}"),
            record.subject,
            record.target_new,
            id=str(record.case_id),
        )
        for record in group
    ]
    began = time.process_time()
    patch = emend.edit(model, tokenizer, edits, method=method, **settings)
    seconds = (time.process_time() - began) / len(group)
    with patch.applied(model):
        rows = plain.measure(group)
        change = math.exp(plain.text_loss() - plain.loss) - 1 if plain.windows else math.nan
    return [{**row, "PPL": change, "seconds": seconds} for row in rows]


def kept(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What an earlier run measured."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {json.dumps(line["key"]): line["rows"] for line in lines}


if __name__ == "__main__":
    main()
