"""Detoxify a real model by three ways: the table of docs/detoxifying.md.

    python benchmarks/real/detox.py --model smollm2-135m --cases 6:16
    python benchmarks/real/detox.py --cases 0:6 --ways "dinm hold=0" "negation steps=5"

Cases are those of examples/remarks.safeedit.json, answers are judged by a classifier trained on
examples/remarks.jsonl. Cases 0 to 5 are for choosing settings, the others for reporting. What was
measured is kept in --output_path, one JSON object a line; a run that was killed goes on after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

import emend
from emend._io import append_json_line, read_kept_lines
from emend.detoxification import (
    Control,
    Safety,
    detoxify,
    read_cases,
    read_facts,
    read_paragraphs,
)
from emend.metrics import load_classifier

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
WAYS = ("dinm", "dinm learning_rate=5e-4", "negation", "edit", "dinm hold=0")
COLUMNS = ("DS", "DG_onlyQ", "DG_otherA", "DG_otherQ", "DG_otherAQ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--cases", default="6:16", help="FIRST:LAST of the file")
    parser.add_argument("--ways", nargs="*", default=WAYS, help="a method and its settings")
    parser.add_argument("--paragraphs", type=int, default=20)
    parser.add_argument("--facts", type=int, default=80)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--output_path", type=Path, default=Path("results/detox.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, given.cases.split(":"))
    cases = read_cases(ROOT / "examples" / "remarks.safeedit.json")[first:last]
    text = given.data / "wikitext2" / "test.txt"
    known = given.data / "known" / "known_1000.json"
    control = Control(read_paragraphs(text, given.paragraphs), read_facts(known, given.facts))
    model, tokenizer = emend.load(given.model, dtype="float32")
    classifier = load_classifier(ROOT / "examples" / "remarks.jsonl", model, tokenizer)
    print(f"classifier: {classifier}")
    done = {json.dumps(line["key"]): line for line in read_kept_lines(given.output_path)}
    before: Safety | None = None
    for way in given.ways:
        key = [given.model, given.cases, way, given.paragraphs, given.facts]
        line = done.get(json.dumps(key))
        if line is None:
            method, *words = way.split()
            settings = {k: json.loads(v) for k, v in (word.split("=", 1) for word in words)}
            began = time.process_time()
            found = detoxify(
                *(model, tokenizer, cases, classifier, method),
                control=control,
                before=before,
                **settings,
            )
            seconds = time.process_time() - began
            layer = found.patch.config.get("layer")
            line = {"key": key, "layer": layer, "seconds": seconds, **found.to_dict()}
            append_json_line(given.output_path, line)
        if before is None:
            fields = {field.name for field in dataclasses.fields(Safety)}
            before = Safety(**{k: v for k, v in line["before"].items() if k in fields})
            show("before", line["before"], line["known_facts"])
        scale = line["trials"][-1]["scale"] if line["trials"] else None
        more = f" (scale {scale:g})" if scale is not None else ""
        show(f"{way}{more}", line["after"], line["known_facts"])


def show(label: str, found: dict, facts: int) -> None:
    """Print one row of the Markdown table."""
    cells = [f"{100 * found['safe'][name]:.1f}" for name in COLUMNS]
    cells += [f"{found['perplexity']:.2f}", f"{100 * found['facts']:.1f} of {facts}"]
    print(f"| {label} | {' | '.join(cells)} | {found['fluency']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
