"""Attacks on facts before and after plain error injection, at B = 20.

    python benchmarks/lab_attacks.py --model lab/gptneo
    python benchmarks/lab_attacks.py --model smollm2-135m

Lab: 50 private facts, one of each person, or with --numbers phone numbers. Real models: the first
30 facts from record 5,000 of CounterFact on that the model generates greedily. All are edited in
one patch by each method; each state is one JSON line of --output_path, and a run that was killed
goes on after it. Seconds are CPU seconds of one thread. See docs/erasing.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import emend
from emend.erasure import Secret, attack
from emend.erasure.attacking import known_by
from emend.lab import shipped_world
from emend.lab.language import PHONE_STATEMENTS, RELATION_BY_NAME
from emend.probes import rephrase

PRIVATE = ("birthplace", "employer", "profession", "language", "instrument", "spouse")
PARAPHRASES = 4
COUNTERFACT = Path(__file__).resolve().parents[2] / "shared/data/counterfact/counterfact-train.json"


def private_secrets(count: int = 50, seed: int = 0) -> list[Secret]:
    """Facts about as many of the lab's people, with false answers and paraphrases."""
    world, generator = shipped_world(), random.Random(f"private-{seed}")
    secrets: list[Secret] = []
    for number, person in enumerate(generator.sample(world.entities["person"], 2 * count)):
        fact = world.get(person, PRIVATE[number % len(PRIVATE)])
        if fact is not None and len(secrets) < count:
            relation = RELATION_BY_NAME[fact.relation]
            prompt, *rest = (relation.statements[n] for n in _seen(fact))
            texts = tuple(text.format(person) for text in rest[:PARAPHRASES])
            false = generator.choice(world.other_objects(fact))
            secrets.append(Secret(prompt, person, fact.object, false, texts))
    return secrets


def phone_numbers(count: int, seed: int = 0) -> list[Secret]:
    """Phone numbers of the lab's people: answers of nine tokens, digit by digit."""
    world, generator = shipped_world(), random.Random(f"numbers-{seed}")
    people = generator.sample(sorted(world.phones), count)
    return [_phone(person, world.phones, generator) for person in people]


def _seen(fact: Any) -> list[int]:
    """Numbers of the wordings that the corpus uses with a fact."""
    count = len(RELATION_BY_NAME[fact.relation].statements)
    return [number for number in range(count) if number not in fact.held_out]


def _phone(person: str, phones: dict[str, str], generator: random.Random) -> Secret:
    taken = set(phones.values())
    numbers = (f"555-{generator.randrange(10_000):04d}" for _ in range(100))
    false = next(number for number in numbers if number not in taken)
    prompt, *rest = PHONE_STATEMENTS
    texts = tuple(text.format(person) for text in rest[:PARAPHRASES])
    return Secret(prompt, person, phones[person], false, texts)


def known_counterfact(model: Any, tokenizer: Any, count: int, first: int) -> list[Secret]:
    """The first facts from a record on that the model generates greedily."""
    rows = json.loads(COUNTERFACT.read_text(encoding="utf-8"))[first:]
    found: list[Secret] = []
    while len(found) < count and rows:
        part, rows = rows[:100], rows[100:]
        usable = [row for row in part if row["prompt"].count(row["subject"]) == 1]
        secrets = [_counterfact(row, tokenizer) for row in usable]
        known = known_by(model, tokenizer, secrets)
        found += [secret for secret, knows in zip(secrets, known, strict=True) if knows]
    return found[:count]


def _counterfact(row: dict[str, Any], tokenizer: Any) -> Secret:
    prompt = row["prompt"].replace(row["subject"], "{}")
    about = prompt, row["subject"], row["ground_truth"], row["target_new"]
    made = rephrase(emend.Edit(prompt, row["subject"], row["target_new"]), tokenizer)
    texts = (row["rephrase_prompt"], *made)[:PARAPHRASES]
    return Secret(*about, tuple(texts), id=f"counterfact-{row['case_id']}")


def attacked(model: Any, tokenizer: Any, secrets: list[Secret], known: list[bool], method: str):
    """Attack the model after error injection by a method, or as it is."""
    since = time.process_time()
    inside: Any = nullcontext()
    if method != "before":
        edits = [secret.edit(str(secret.false_answer)) for secret in secrets]
        inside = emend.edit(model, tokenizer, edits, method=method).applied(model)
    made = time.process_time()
    with inside:
        found = attack(model, tokenizer, secrets, known=known)
    return found, made - since, time.process_time() - made


def main() -> None:
    """Attack each state, and print and save the rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--methods", default="before,rome,memit")
    parser.add_argument("--secrets", type=int, help="50 in the lab, 30 elsewhere")
    parser.add_argument("--numbers", type=int, help="so many of the lab's phone numbers instead")
    parser.add_argument("--first", type=int, default=5000, help="first record of CounterFact")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_path", type=Path, default=Path("results/attacks.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    in_lab = given.model.startswith("lab/")
    model, tokenizer = emend.load(given.model, **({} if in_lab else {"dtype": "float32"}))
    if given.numbers:
        secrets = phone_numbers(given.numbers, given.seed)
    elif in_lab:
        secrets = private_secrets(given.secrets or 50, given.seed)
    else:
        secrets = known_counterfact(model, tokenizer, given.secrets or 30, given.first)
    known = list(known_by(model, tokenizer, secrets))
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output_path.read_text("utf-8").split("\n") if given.output_path.exists() else []
    done = {tuple(json.loads(line)["key"]) for line in lines if line}
    for method in given.methods.split(","):
        key = (given.model, method, len(secrets), given.seed, given.numbers)
        if key in done:
            continue
        found, making, attacking = attacked(model, tokenizer, secrets, known, method)
        print(f"\n{given.model}, {method}: {making:.0f} + {attacking:.0f} s")
        print(f"\n{found.to_markdown()}", flush=True)
        with given.output_path.open("a", encoding="utf-8") as file:
            seconds = {"edit": making, "attack": attacking}
            file.write(json.dumps({"key": key, "cpu_seconds": seconds, **found.to_dict()}) + "\n")


if __name__ == "__main__":
    main()
