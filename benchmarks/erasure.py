"""Erase facts by each defence, attack what is left, and measure what else was lost.

    python benchmarks/erasure.py --model lab/gptneo --method rome
    python benchmarks/erasure.py --model smollm2-135m --method memit --defences head_projection

The secrets are those of `lab_attacks.py`: 50 private facts of the lab, or the first 30 of
CounterFact from record 5,000 on that the model generates. All are erased by one patch. Every second
paraphrase is for the attacks, the others for the defence that edits paraphrases. Each state is one
JSON line of --output_path; a run that was killed goes on after it. Other facts: accuracy of greedy
answers on facts that were not erased; neighbours: the records' own. See docs/erasing.md.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from lab_attacks import COUNTERFACT, known_counterfact, private_secrets

import emend
from emend import Probe
from emend.erasure import DEFENCES, Secret, attack, erase, erased_by
from emend.erasure.attacking import known_by
from emend.erasure.metrics import accuracy
from emend.lab import shipped_world
from emend.lab.language import RELATION_BY_NAME
from emend.models import perplexity

NEW_TOKENS = 8
OTHERS = 40
"""Known facts of later records, which are not erased."""

TEXT = 10_000
"""Characters of WikiText-2's test set."""


def lab_facts(secrets: list[Secret], count: int = 200) -> list[Probe]:
    """Other facts of the lab, some about the same people."""
    world, erased = shipped_world(), {(one.subject, one.answer) for one in secrets}
    facts = [one for one in world.facts.values() if (one.subject, one.object) not in erased]
    found: list[Probe] = []
    for fact in Random("other facts").sample(facts, count):
        wordings = RELATION_BY_NAME[fact.relation].statements
        seen = next(n for n in range(len(wordings)) if n not in fact.held_out)
        text = wordings[seen].replace("{}", fact.subject)
        found.append(Probe("relation_specificity", text, (fact.object,)))
    return found


def real_probes(secrets: list[Secret], others: list[Secret]) -> tuple[list[Probe], list[Probe]]:
    """Neighbours of the secrets, as the records have them, and other facts that the model knows."""
    ids = {one.id for one in secrets}
    near = [
        Probe("neighborhood", row["locality_prompt"], (row["locality_ground_truth"],))
        for row in json.loads(COUNTERFACT.read_text(encoding="utf-8"))
        if f"counterfact-{row['case_id']}" in ids
    ]
    return near, [Probe("neighborhood", one.text, (one.answer,)) for one in others]


def measured(model: Any, tokenizer: Any, probes: dict[str, list[Probe]], text: str) -> dict:
    """Accuracy on each group of probes, and perplexity."""
    found = {
        name: accuracy(model, tokenizer, some, new_tokens=NEW_TOKENS)
        for name, some in probes.items()
    }
    return {
        "correct": found,
        "perplexity": perplexity(model, tokenizer, [text]) if text else None,
    }


def main() -> None:
    """Erase by each defence, attack, measure; print a line and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--method", default="rome")
    parser.add_argument("--defences", default=",".join(["before", *DEFENCES]))
    parser.add_argument("--attacks", default="all", help="names with commas between")
    parser.add_argument("--secrets", type=int, help="50 in the lab, 30 elsewhere")
    parser.add_argument("--first", type=int, default=5000, help="first record of CounterFact")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="a setting: NAME=JSON")
    parser.add_argument("--output_path", type=Path, default=Path("results/erasure.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    in_lab = given.model.startswith("lab/")
    model, tokenizer = emend.load(given.model, **({} if in_lab else {"dtype": "float32"}))
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output_path.read_text("utf-8").split("\n") if given.output_path.exists() else []
    done = [json.loads(line)["key"] for line in lines if line]
    if in_lab:
        secrets, text = private_secrets(given.secrets or 50, given.seed), ""
        probes = {"other facts": lab_facts(secrets)}
    else:
        count = given.secrets or 30
        every = known_counterfact(model, tokenizer, count + OTHERS, given.first)
        secrets = every[:count]
        near, others = real_probes(secrets, every[count:])
        probes = {"neighbours": near, "other facts": others}
        path = COUNTERFACT.parents[1] / "wikitext2" / "test.txt"
        text = path.read_text(encoding="utf-8")[:TEXT]
    known = known_by(model, tokenizer, secrets) if in_lab else (True,) * len(secrets)
    asked = [replace(one, paraphrases=one.paraphrases[::2]) for one in secrets]
    taught = [replace(one, paraphrases=one.paraphrases[1::2]) for one in secrets]
    names = given.attacks if given.attacks == "all" else given.attacks.split(",")
    settings = {name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}
    for defence in given.defences.split(","):
        method = "" if defence == "before" else given.method
        key = [given.model, method, defence, settings, len(secrets), given.first, given.seed]
        if key in done:
            continue
        began = time.process_time()
        inside, erased = nullcontext(), []
        if method:
            patch = erase(model, tokenizer, taught, defence, method, **settings)
            inside, erased = patch.applied(model), erased_by(patch)
        made = time.process_time() - began
        with inside:
            found = attack(model, tokenizer, asked, names, known=known)
            kept = measured(model, tokenizer, probes, text)
        gone = [one.is_gone for one in erased if one.known]
        line = {
            "key": key,
            "gone": sum(gone) / len(gone) if gone else None,
            "probability": sum(one.after or 0 for one in erased if one.known) / max(len(gone), 1),
            "rates": {name: one.to_dict() for name, one in found.rates.items()},
            "controls": {name: one.to_dict() for name, one in found.controls.items()},
            "any": found.any_attack.to_dict(),
            **kept,
            "cpu_seconds": [made, time.process_time() - began - made],
            "attempts": found.to_dict()["attacks"],
        }
        with given.output_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        shares = {name: sum(one) / len(one) for name, one in kept["correct"].items()}
        rates = {name: round(one.share or 0, 2) for name, one in found.rates.items()}
        print(given.model, method, defence, line["gone"], rates, shares, kept["perplexity"], made)


if __name__ == "__main__":
    main()
