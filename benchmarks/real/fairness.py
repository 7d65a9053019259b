"""Debias a real model, and measure it on what was held out of the edit.

    python benchmarks/real/fairness.py --model smollm2-135m [--set passes=5] [--patch patch/]

Occupations, templates and contrasts are those that ship. Every fourth of each is reported on and
takes no part in anything else (`Occupations.split`); of the rest every fourth is for choosing
settings (--choose measures those instead) and the others are edited. Also measured: occupations of
LRE that do not ship, StereoSet, CrowS-Pairs (gender), facts of LRE, the perplexity of WikiText-2.
Each part is one JSON line of --output_path, and a run that was killed goes on after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import emend
from emend import datasets, fairness
from emend.models import perplexity, score
from emend.patches import load_patch

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RELATIONS = ("country_capital_city", "landmark_on_continent", "company_hq")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="shared")
    parser.add_argument("--set", action="append", default=[], help="a setting: NAME=JSON")
    parser.add_argument("--patch", type=Path, help="save the patch there, or measure the one there")
    parser.add_argument("--choose", action="store_true", help="measure what settings are chosen on")
    parser.add_argument("--records", type=int, default=200, help="records of each dataset")
    parser.add_argument("--windows", type=int, default=8, help="of 512 tokens, for the perplexity")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--output_path", type=Path, default=Path("results/fairness.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(given.model, dtype="float32")
    rest, reported = fairness.shipped_occupations().split()
    edited, chosen = rest.split()
    patch = made(model, tokenizer, edited, given)
    measured = chosen if given.choose else reported
    parts = measurements(model, tokenizer, patch, measured, given)
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output_path.read_text().splitlines() if given.output_path.exists() else []
    done = {row["part"]: row for row in map(json.loads, lines)}
    for name, measure in parts.items():
        row = done.get(name)
        if row is None:
            began = time.process_time()
            row = {"part": name, **measure(), "seconds": time.process_time() - began}
            with given.output_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def made(model: Any, tokenizer: Any, edited: fairness.Occupations, given: Any) -> Any:
    """The patch: read from --patch if it is there, else made and saved there."""
    if given.patch and (given.patch / "adapter_config.json").exists():
        return load_patch(given.patch, model)
    settings = {name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}
    began = time.process_time()
    patch = fairness.debias(model, tokenizer, edited, given.method, **settings)
    print(f"edited in {time.process_time() - began:.0f} CPU s", flush=True)
    if given.patch:
        patch.save_pretrained(given.patch)
    return patch


def measurements(
    model: Any, tokenizer: Any, patch: Any, measured: fairness.Occupations, given: Any
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by name."""
    lre = fairness.read_occupations(given.data / "lre" / "occupation_gender.json")
    known = set(fairness.shipped_occupations().occupations)
    unseen = tuple(one for one in lre.occupations if one not in known)
    other = dataclasses.replace(measured, occupations=unseen)

    def gap(subjects: fairness.Occupations) -> Callable[[], dict[str, Any]]:
        return lambda: short(fairness.pronoun_gap(model, tokenizer, subjects, patch).to_dict())

    def sentences(name: str, file: str, kind: str = "") -> Callable[[], dict[str, Any]]:
        def measure() -> dict[str, Any]:
            found = datasets.load_comparisons(name, given.data / file)
            found = [one for one in found if kind in ("", one.bias_type)][: given.records]
            report = fairness.sentence_bias(model, tokenizer, found, patch)
            rows = report.to_dict()["bias_types"]
            return {kind: short(row) for kind, row in rows.items()}

        return measure

    def twice(measure: Callable[[], float]) -> dict[str, Any]:
        before = measure()
        with patch.applied(model):
            return {"before": before, "after": measure()}

    text = (given.data / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    text = text[: 2200 * given.windows]
    return {
        "held out": gap(measured),
        "contrasts": gap(measured.contrasting),
        "unseen LRE": gap(other),
        "perplexity": lambda: twice(lambda: perplexity(model, tokenizer, [text])),
        "facts": lambda: twice(lambda: recall(model, tokenizer, given.data / "lre")),
        "stereoset gender_test": sentences("stereoset", "stereoset/gender_test.json"),
        "stereoset dev": sentences("stereoset", "stereoset/dev.json"),
        "crows gender": sentences("crows_pairs", "crows/crows_pairs_anonymized.csv", "gender"),
    }


def recall(model: Any, tokenizer: Any, folder: Path, count: int = 24) -> float:
    """Share of facts whose object is generated greedily."""
    prompts: list[str] = []
    objects: list[str] = []
    for name in RELATIONS:
        relation = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for sample in relation["samples"][:count]:
            prompts.append(relation["prompt_templates"][0].format(sample["subject"]))
            objects.append(sample["object"])
    found = score(model, tokenizer, prompts, objects)
    return sum(one.token_accuracy == 1 for one in found) / len(found)


def short(found: dict[str, Any]) -> dict[str, Any]:
    """Measures as [value, low, high]."""
    parts = {
        when: {name: [round(v, 4) for v in one.values()] for name, one in found[when].items()}
        for when in ("before", "after", "change")
    }
    return {"n": found.get("prompts") or found.get("count"), **parts}


if __name__ == "__main__":
    main()
