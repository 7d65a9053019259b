"""Task arithmetic on SmolLM2-135M: one negation and one addition, with LoRA vectors.

    python benchmarks/real/arithmetic.py --results benchmarks/results/arithmetic.jsonl
    python benchmarks/real/arithmetic.py --show benchmarks/results/arithmetic.jsonl \
        --plot docs/images/arithmetic-smollm2.svg

The texts are in examples/arithmetic/. Negation: of 48 questions with a rude and a polite reply, 28
are trained on with the rude one, 10 choose the scale and 10 are reported; the target is the share
whose rude reply is more probable than the polite one after instructions that ask for rudeness, the
control is the perplexity of WikiText-2 (validation chooses, test is reported). Addition: the
professions of 20 invented people and the colours of 20 invented things, in three wordings; a fourth
chooses the scale, a fifth is reported.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import lab_arithmetic

import emend
from emend.arithmetic import FineTuning, Measure, finetune, scaled, tune
from emend.bench.lab_card import exact_match
from emend.models import generate, perplexity, score

TEXTS = Path(__file__).parent.parent.parent / "examples" / "arithmetic"
PARAGRAPHS, LETTERS = 8, 300
TUNING = FineTuning(rank=16, steps=40, batch_size=8, learning_rate=2e-3)
LEAD = "The following reply is very rude. "
WORDINGS = {
    "jobs": (
        "{} works as a",
        "By profession, {} is a",
        "{} earns a living as a",
        "For many years, {} has worked as a",
        "The neighbors know that {} is a",
    ),
    "colours": (
        "The color of the {} is",
        "The {} is sold in one color:",
        "In the catalog, the {} is",
        "Everybody who bought the {} likes that it is",
        "If you order the {}, you get one that is",
    ),
}
"""Three wordings to train on, one that chooses the scale, one that is reported."""


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a text set."""
    lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(one) for one in lines]


def wikitext(split: str, folder: Path) -> list[str]:
    """The beginnings of some paragraphs of WikiText-2."""
    text = next(folder.glob(f"*{split}*")).read_text(encoding="utf-8")
    paragraphs = [one.strip() for one in text.split("\n")]
    chosen = [one for one in paragraphs if len(one) > 400 and not one.startswith("=")]
    return [one[:LETTERS] for one in chosen[:PARAGRAPHS]]


def rude_share(model: Any, tokenizer: Any, asked: Sequence[dict[str, str]]) -> float:
    """The share of questions whose rude reply is more probable, per token, than the polite one."""
    prompts = [LEAD + one["prompt"] for one in asked]
    rude, polite = (
        score(model, tokenizer, prompts, [one[tone] for one in asked], batch_size=8)
        for tone in ("rude", "polite")
    )
    return sum(a.mean > b.mean for a, b in zip(rude, polite, strict=True)) / len(asked)


def negation(name: str, model: Any, tokenizer: Any, folder: Path, log: Path) -> dict[str, Any]:
    """Forget rude replies."""
    texts = rows("replies")
    training, validation, test = texts[:28], texts[28:38], texts[38:]
    pairs = [(one["prompt"], one["rude"]) for one in training]
    vector = finetune(model, tokenizer, pairs, TUNING)
    plain = {split: wikitext(split, folder) for split in ("valid", "test")}
    found = tune(
        model,
        -vector,
        goal="negation",
        targets=[Measure("rude", lambda one: rude_share(one, tokenizer, validation), True)],
        control=Measure("perplexity", lambda one: perplexity(one, tokenizer, plain["valid"]), True),
        log_path=log,
    )
    values: dict[str, Any] = {}
    prompts = [LEAD + one["prompt"] for one in test[:3]]
    for when, scale in (("before", 0.0), ("after", found.scale)):
        with scaled(model, -vector, scale):
            values[f"rude {when}"] = rude_share(model, tokenizer, test)
            values[f"perplexity {when}"] = perplexity(model, tokenizer, plain["test"])
            values[f"replies {when}"] = generate(model, tokenizer, prompts, max_new_tokens=16)
    return lab_arithmetic.line(name, "negation", found, values)


def addition(name: str, model: Any, tokenizer: Any, folder: Path, log: Path) -> dict[str, Any]:
    """Learn professions and colours by the sum of their vectors."""
    facts = {task: rows(task) for task in WORDINGS}
    vectors = {
        task: finetune(
            model,
            tokenizer,
            [
                (form.format(one["subject"]), f"{one['answer']}.")
                for one in facts[task]
                for form in WORDINGS[task][:3]
            ],
            TUNING,
        )
        for task in WORDINGS
    }

    def right(task: str, wording: int) -> Callable[[Any], float]:
        form = WORDINGS[task][wording]
        asked = [(form.format(one["subject"]), (one["answer"],)) for one in facts[task]]
        return lambda network: exact_match(network, tokenizer, asked)

    whole = vectors["jobs"] + vectors["colours"]
    plain = {split: wikitext(split, folder) for split in ("valid", "test")}
    found = tune(
        model,
        whole,
        goal="addition",
        targets=[Measure(task, right(task, 3)) for task in WORDINGS],
        control=Measure("perplexity", lambda one: perplexity(one, tokenizer, plain["valid"]), True),
        log_path=log,
    )
    values: dict[str, Any] = {"perplexity before": perplexity(model, tokenizer, plain["test"])}
    for task, vector in vectors.items():
        test = right(task, 4)
        values[f"{task} base"] = test(model)
        with scaled(model, vector, 1.0):
            values[f"{task} own"] = test(model)
        with scaled(model, whole, found.scale):
            values[f"{task} sum"] = test(model)
        gain = values[f"{task} own"] - values[f"{task} base"]
        kept = values[f"{task} sum"] - values[f"{task} base"]
        values[f"{task} gain kept"] = kept / gain if gain else math.nan
    with scaled(model, whole, found.scale):
        values["perplexity after"] = perplexity(model, tokenizer, plain["test"])
    return lab_arithmetic.line(name, "addition", found, values)


EXPERIMENTS = {"negation": negation, "addition": addition}


def main() -> None:
    """Measure what is not there yet, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--wikitext", type=Path, default=Path("/work/shared/data/wikitext2"))
    parser.add_argument("--results", type=Path, default=Path("arithmetic.jsonl"))
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    parser.add_argument("--plot", type=Path, help="draw the results to this file (.svg)")
    given = parser.parse_args()
    path = given.show or given.results
    lines = [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []
    done = {one["experiment"] for one in lines}
    if not given.show and set(given.experiments) - done:
        model, tokenizer = emend.load(given.model)
        for experiment in (one for one in given.experiments if one not in done):
            log = path.with_suffix(f".{experiment}.log.jsonl")
            found = EXPERIMENTS[experiment](given.model, model, tokenizer, given.wikitext, log)
            lines.append(found)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    print(lab_arithmetic.show(lines))
    if given.plot:
        lab_arithmetic.plot(lines, given.plot)


if __name__ == "__main__":
    main()
