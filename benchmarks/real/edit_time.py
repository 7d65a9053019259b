"""Time rome's edits of a real model against the published loop written plainly, in one process.

    python benchmarks/real/edit_time.py --records 5000:5006

The plain loop (`tests/reference/rome.py`) runs the whole model over every row and computes the
vocabulary at every token, in 25 steps over 21 contexts, as published for models with gated MLPs;
the time of its contexts, statistics and checks is not counted. Ours is the time of `emend.edit` as
a whole, but for the statistics, which are made once. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from counterfact import SHARED, read_records

import emend
from emend.editing import sample_templates
from emend.models import ModelView, ensure_start

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.reference import rome as reference

STEPS = 25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--records", default="5000:5006", help="FIRST:LAST of the file")
    parser.add_argument("--data", type=Path, default=SHARED)
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, given.records.split(":"))
    records = read_records(given.data / "counterfact" / "counterfact-train.json", first, last)
    model, tokenizer = emend.load(given.model, dtype="float32")
    ensure_start(model, tokenizer)
    templates = sample_templates(model, tokenizer)
    edits = [
        emend.Edit(record.prompt.replace(record.subject, "{}"), record.subject, record.target_new)
        for record in records
    ]
    warm = emend.edit(model, tokenizer, [edits[0]], method="rome", steps=2)
    site = ModelView(model).down_projection(int(warm.config["layer"]))
    sums = [0.0, 0.0]
    for edit in edits:
        began = time.process_time()
        rows = reference.build_rows(tokenizer, edit.prompt, edit.subject, edit.target, templates)
        reference.search_value(model, site, rows, steps=STEPS, weight_decay=1e-3)
        plain = time.process_time() - began
        began = time.process_time()
        emend.edit(model, tokenizer, [edit], method="rome")
        ours = time.process_time() - began
        sums = [sums[0] + plain, sums[1] + ours]
        print(f"plain {plain:.1f} s, emend {ours:.1f} s, ratio {plain / ours:.1f}", flush=True)
    print(
        f"{len(edits)} edits: plain {sums[0]:.0f} s, emend {sums[1]:.0f} s, ratio "
        f"{sums[0] / sums[1]:.1f}"
    )


if __name__ == "__main__":
    main()
