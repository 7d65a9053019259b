"""Task arithmetic on SmolLM2-135M: one negation and one addition, with LoRA vectors.

    python benchmarks/real/arithmetic.py --results benchmarks/results/arithmetic.jsonl
    python benchmarks/real/arithmetic.py --show benchmarks/results/arithmetic.jsonl \
        --plot docs/images/arithmetic-smollm2.svg

The texts are in examples/arithmetic/. Negation: of 48 questions with a rude and a polite reply, 28
are trained on with the rude one, 10 choose the scale and 10 are reported; the targets are the
perplexities of the rude and of the polite replies after the questions, the control is that of
WikiText-2 (validation chooses, test is reported). Addition: the professions of 20 invented people
and the colours of 20 invented things, in three wordings; a fourth chooses the scale, a fifth is
reported.

With --careful what chooses the scale also ends the training, which keeps other paragraphs of
WikiText-2's validation part, and an addition's scale is one whose WikiText-2 perplexity rises by
5% at most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import lab_arithmetic

from emend.arithmetic import FineTuning, Measure, finetune, scaled, tune
from emend.arithmetic.tuning import SCALES
from emend.bench.lab_card import exact_match
from emend.models import generate, perplexity

TEXTS = Path(__file__).parent.parent.parent / "examples" / "arithmetic"
PARAGRAPHS, LETTERS = 8, 300
KEPT = 24
"""Paragraphs of the validation part, after those that choose the scale, that training keeps."""
TUNING = FineTuning(rank=16, steps=40, batch_size=8)
CAREFUL = FineTuning(rank=8, steps=60, batch_size=8, learning_rate=1e-3)
RISE = 1.05
"""Of addition: the factor by which the control perplexity may rise."""
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


class Given(NamedTuple):
    """Where WikiText-2 is, the grid of scales, and how vectors are trained."""

    folder: Path
    scales: Sequence[float]
    tuning: FineTuning
    careful: bool

    def training(self, held_out: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """What a careful training is given besides the texts to learn."""
        if not self.careful:
            return {}
        return {"held_out": held_out, "kept": wikitext("valid", self.folder, PARAGRAPHS, KEPT)}


WIKITEXT = Path(__file__).resolve().parents[3] / "shared" / "data" / "wikitext2"


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a text set."""
    lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(one) for one in lines]


def wikitext(split: str, folder: Path, first: int = 0, count: int = PARAGRAPHS) -> list[str]:
    """The beginnings of some paragraphs of WikiText-2."""
    text = next(folder.glob(f"*{split}*")).read_text(encoding="utf-8")
    paragraphs = [one.strip() for one in text.split("\n")]
    chosen = [one for one in paragraphs if len(one) > 400 and not one.startswith("=")]
    return [one[:LETTERS] for one in chosen[first : first + count]]


def taken(vector: Any) -> int:
    """The steps of a vector's training; one cached by an older version took all of them."""
    return vector.config.get("steps_taken", vector.config["steps"])


def negation(name: str, model: Any, tokenizer: Any, given: Given, log: Path) -> dict[str, Any]:
    """Forget rude replies."""
    texts = rows("replies")
    training, validation, test = texts[:28], texts[28:38], texts[38:]
    pairs = {
        (split, tone): [(one["prompt"], one[tone]) for one in part]
        for split, part in (("training", training), ("validation", validation), ("test", test))
        for tone in ("rude", "polite")
    }
    further = given.training(pairs["validation", "rude"])
    vector = finetune(model, tokenizer, pairs["training", "rude"], given.tuning, **further)
    plain = {split: wikitext(split, given.folder) for split in ("valid", "test")}

    def of_replies(split: str, tone: str) -> Callable[[Any], float]:
        return lambda one: lab_arithmetic.perplexity(one, tokenizer, pairs[split, tone])

    found = tune(
        model,
        -vector,
        goal="negation",
        targets=[Measure(tone, of_replies("validation", tone)) for tone in ("rude", "polite")],
        control=Measure("perplexity", lambda one: perplexity(one, tokenizer, plain["valid"]), True),
        scales=given.scales,
        log_path=log,
    )
    values: dict[str, Any] = {"steps": taken(vector)}
    prompts = [one["prompt"] for one in test[:4]]
    cases = {"before": 0.0, "after": found.scale, "with the vector added": -1.0}
    for when, scale in cases.items():
        with scaled(model, -vector, scale):
            for tone in ("rude", "polite"):
                values[f"{tone} replies {when}"] = of_replies("test", tone)(model)
            values[f"WikiText-2 {when}"] = perplexity(model, tokenizer, plain["test"])
            values[f"written {when}"] = generate(model, tokenizer, prompts, max_new_tokens=16)
    return lab_arithmetic.line(name, "negation", found, values)


def addition(name: str, model: Any, tokenizer: Any, given: Given, log: Path) -> dict[str, Any]:
    """Learn professions and colours by the sum of their vectors."""
    facts = {task: rows(task) for task in WORDINGS}

    def told(task: str, wordings: Sequence[str]) -> list[tuple[str, str]]:
        return [
            (form.format(one["subject"]), f"{one['answer']}.")
            for one in facts[task]
            for form in wordings
        ]

    vectors = {
        task: finetune(
            *(model, tokenizer, told(task, forms[:3]), given.tuning),
            **given.training(told(task, forms[3:4])),
        )
        for task, forms in WORDINGS.items()
    }

    def right(task: str, wording: int) -> Callable[[Any], float]:
        form = WORDINGS[task][wording]
        asked = [(form.format(one["subject"]), (one["answer"],)) for one in facts[task]]
        return lambda network: exact_match(network, tokenizer, asked)

    whole = vectors["jobs"] + vectors["colours"]
    plain = {split: wikitext(split, given.folder) for split in ("valid", "test")}
    control = Measure("perplexity", lambda one: perplexity(one, tokenizer, plain["valid"]), True)
    found = tune(
        model,
        whole,
        goal="addition",
        targets=[Measure(task, right(task, 3)) for task in WORDINGS],
        control=control,
        bound=RISE * control.of(model) if given.careful else None,
        scales=given.scales,
        log_path=log,
    )
    values: dict[str, Any] = {f"{task} steps": taken(vector) for task, vector in vectors.items()}
    values["perplexity before"] = perplexity(model, tokenizer, plain["test"])
    test_of = partial(right, wording=4)
    values |= lab_arithmetic.gains(model, vectors, whole, found.scale, test_of)
    with scaled(model, whole, found.scale):
        values["perplexity after"] = perplexity(model, tokenizer, plain["test"])
    return lab_arithmetic.line(name, "addition", found, values)


EXPERIMENTS = {"negation": negation, "addition": addition}


def main() -> None:
    """Measure what is not there yet, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--every", type=int, default=1, help="points of the grid, in steps of 0.05")
    parser.add_argument("--careful", action="store_true", help="see above")
    for setting in ("learning_rate", "rank", "steps", "hold"):
        kind = int if setting in ("rank", "steps") else float
        parser.add_argument(f"--{setting}", type=kind, help="of the training")
    parser.add_argument("--wikitext", type=Path, default=WIKITEXT)
    parser.add_argument("--results", type=Path, default=Path("arithmetic.jsonl"))
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    parser.add_argument("--plot", type=Path, help="draw the results to this file (.svg)")
    given = parser.parse_args()
    wanted = {name: EXPERIMENTS[name] for name in given.experiments}
    models = [] if given.show else [given.model]
    path = given.show or given.results
    named = {name: getattr(given, name) for name in ("learning_rate", "rank", "steps", "hold")}
    changed = {name: value for name, value in named.items() if value is not None}
    tuning = replace(CAREFUL if given.careful else TUNING, **changed)
    about = Given(given.wikitext, SCALES[:: given.every], tuning, given.careful)
    lines = lab_arithmetic.measured(path, models, wanted, about)
    print(lab_arithmetic.show(lines))
    if given.plot:
        lab_arithmetic.plot(lines, given.plot)


if __name__ == "__main__":
    main()
