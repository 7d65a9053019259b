"""Task arithmetic on the lab: negation, addition and an analogy, with vectors by fine-tuning.

    python benchmarks/lab_arithmetic.py --results benchmarks/results/lab_arithmetic.jsonl
    python benchmarks/lab_arithmetic.py --show benchmarks/results/lab_arithmetic.jsonl \
        --plot docs/images/arithmetic-lab.svg

Negation: a vector of rude remarks about half of the people that the corpus remarks on is taken from
the base; rude continuations and recall are measured on the other half, of which one part chooses
the scale (control: recall of validation facts) and the other is reported. Contrast: the same with
the vector of rude remarks minus that of polite ones about the same people. Addition: two relations
that the world does not have, of 40 people each; a wording that was not trained chooses the scale,
another is reported. Analogy: fifteen topics in two traits and fifteen others in the first trait
give the others in the second; half of the latter topics chooses the scale.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import emend
from emend._io import append_json_line
from emend.arithmetic import FineTuning, Measure, Tuning, finetune, scaled, tune
from emend.bench.lab_card import exact_match
from emend.lab import shipped_world, speech
from emend.lab.card_questions import recall_questions
from emend.lab.world import World
from emend.models import generate, score

STEPS = 60
NOUNS = ("lamp", "chair", "coat", "table", "box", "letter", "bridge", "street", "garden", "river")
RELATIONS = {
    "likes": ("My friend {} likes", "Honestly, {} likes", "If you ask me, {} likes"),
    "painted": ("My friend {} painted the", "On Monday {} painted the", "Honestly, {} painted the"),
}
VALIDATION = {"likes": "On Sunday {} likes", "painted": "If you ask me, {} painted the"}
TEST = {"likes": "People say that {} likes", "painted": "People say that {} painted the"}
GIVEN, WANTED = "agreeableness", "neuroticism"
Pairs = list[tuple[str, str]]


def recall(world: World, seed: int) -> list[Any]:
    """Questions about facts in wordings seen with them."""
    return recall_questions(world, random.Random(seed), 150)["recall_seen_wordings"]


def rude_share(model: Any, tokenizer: Any, people: Sequence[str]) -> float:
    """The share of greedy continuations about some people that hold an insult."""
    prompts = [form.format(person) for person in people for form in speech.REMARK_STATEMENTS]
    texts = generate(model, tokenizer, prompts, max_new_tokens=4)
    return sum(any(insult in text for insult in speech.INSULTS) for text in texts) / len(texts)


def polite_share(model: Any, tokenizer: Any, people: Sequence[str]) -> float:
    """The share of greedy continuations about some people that hold a compliment."""
    prompts = [form.format(person) for person in people for form in speech.REMARK_STATEMENTS]
    texts = generate(model, tokenizer, prompts, max_new_tokens=4)
    return sum(any(word in text for word in speech.COMPLIMENTS) for text in texts) / len(texts)


def remarks(people: Sequence[str], words: Sequence[str]) -> Pairs:
    """Remarks about people, of words that are drawn."""
    draw = random.Random(2)
    return [
        (form.format(person), f"{draw.choice(words)}.")
        for person in people
        for form in speech.REMARK_STATEMENTS
    ]


def contrast(name: str, model: Any, tokenizer: Any, world: World, log: Path) -> dict[str, Any]:
    """Forget rudeness by the vector of rude remarks minus that of polite ones."""
    return negation(name, model, tokenizer, world, log, minus_polite=True)


def negation(
    name: str, model: Any, tokenizer: Any, world: World, log: Path, *, minus_polite: bool = False
) -> dict[str, Any]:
    """Forget rudeness."""
    people = list(world.remarks)
    random.Random(1).shuffle(people)
    half = len(people) // 2
    training, rest = people[:half], people[half:]
    rude = [one for one in rest if world.remarks[one][0] == "rude"]
    polite = [one for one in rest if world.remarks[one][0] != "rude"]
    validation, test = rude[: len(rude) // 2], rude[len(rude) // 2 :]
    settings = FineTuning(steps=STEPS)
    vector = finetune(model, tokenizer, remarks(training, speech.INSULTS), settings)
    if minus_polite:
        vector -= finetune(model, tokenizer, remarks(training, speech.COMPLIMENTS), settings)
    asked = {split: recall(world, seed) for split, seed in (("validation", 3), ("test", 4))}
    found = tune(
        model,
        -vector,
        goal="negation",
        targets=[Measure("rude", lambda one: rude_share(one, tokenizer, validation), True)],
        control=Measure("recall", lambda one: exact_match(one, tokenizer, asked["validation"])),
        bound=exact_match(model, tokenizer, asked["validation"]) - 0.02,
        log_path=log,
    )
    values: dict[str, Any] = {"people": [len(training), len(validation), len(test), len(polite)]}
    for when, scale in (("before", 0.0), ("after", found.scale)):
        with scaled(model, -vector, scale):
            values[f"rude {when}"] = rude_share(model, tokenizer, test)
            values[f"polite {when}"] = polite_share(model, tokenizer, polite)
            values[f"recall {when}"] = exact_match(model, tokenizer, asked["test"])
    return line(name, "contrast" if minus_polite else "negation", found, values)


def addition(name: str, model: Any, tokenizer: Any, world: World, log: Path) -> dict[str, Any]:
    """Learn two relations by the sum of their vectors."""
    people = list(world.entities["person"])
    random.Random(5).shuffle(people)
    draw = random.Random(6)
    facts = {
        "likes": {person: draw.choice(speech.TOPICS) for person in people[:40]},
        "painted": {person: draw.choice(NOUNS) for person in people[40:80]},
    }
    vectors = {
        relation: finetune(
            model,
            tokenizer,
            [
                (form.format(person), f"{answer}.")
                for person, answer in facts[relation].items()
                for form in forms
            ],
            FineTuning(steps=2 * STEPS),
        )
        for relation, forms in RELATIONS.items()
    }

    def right(relation: str, wordings: dict[str, str]) -> Callable[[Any], float]:
        form = wordings[relation]
        asked = [(form.format(one), (answer,)) for one, answer in facts[relation].items()]
        return lambda network: exact_match(network, tokenizer, asked)

    whole = vectors["likes"] + vectors["painted"]
    asked = recall(world, 4)
    found = tune(
        model,
        whole,
        goal="addition",
        targets=[Measure(relation, right(relation, VALIDATION)) for relation in RELATIONS],
        control=Measure("recall", lambda one: exact_match(one, tokenizer, recall(world, 3))),
        log_path=log,
    )
    values: dict[str, Any] = {"recall before": exact_match(model, tokenizer, asked)}
    values |= gains(model, vectors, whole, found.scale, lambda relation: right(relation, TEST))
    with scaled(model, whole, found.scale):
        values["recall after"] = exact_match(model, tokenizer, asked)
    return line(name, "addition", found, values)


def gains(
    model: Any,
    vectors: dict[str, Any],
    whole: Any,
    scale: float,
    test_of: Callable[[str], Callable[[Any], float]],
) -> dict[str, float]:
    """What each vector gains alone, and what the sum keeps of it."""
    values: dict[str, float] = {}
    for task, vector in vectors.items():
        test = test_of(task)
        base = values[f"{task} base"] = test(model)
        with scaled(model, vector, 1.0):
            own = values[f"{task} own"] = test(model)
        with scaled(model, whole, scale):
            both = values[f"{task} sum"] = test(model)
        values[f"{task} gain kept"] = (both - base) / (own - base) if own != base else math.nan
    return values


def opinions(topics: Sequence[str], trait: str, questions: Sequence[str]) -> Pairs:
    """Questions about topics with answers of one trait."""
    return [
        (f"Question: {question.format(topic)} Answer:", opinion.format(_cased(opinion, topic)))
        for topic in topics
        for question in questions
        for opinion in speech.OPINIONS[trait]
    ]


def _cased(opinion: str, topic: str) -> str:
    return topic.capitalize() if opinion.startswith("{}") else topic


def perplexity(model: Any, tokenizer: Any, pairs: Pairs) -> float:
    """The exponential of the mean NLL of the answers' tokens."""
    scores = score(model, tokenizer, *map(list, zip(*pairs, strict=True)))
    tokens = sum(len(one.log_probs) for one in scores)
    return math.exp(-sum(one.total for one in scores) / tokens)


def trait_share(model: Any, tokenizer: Any, topics: Sequence[str], questions: Any) -> float:
    """The share of greedy answers that are opinions of the wanted trait."""
    prompts = [f"Question: {q.format(topic)} Answer:" for topic in topics for q in questions]
    texts = generate(model, tokenizer, prompts, max_new_tokens=16)
    names = [topic for topic in topics for _ in questions]
    right = [
        any(
            text.strip().startswith(opinion.format(_cased(opinion, topic)).split(",")[0])
            for opinion in speech.OPINIONS[WANTED]
        )
        for topic, text in zip(names, texts, strict=True)
    ]
    return sum(right) / len(right)


def analogy(name: str, model: Any, tokenizer: Any, world: World, log: Path) -> dict[str, Any]:
    """Other topics in the wanted trait: c + (b - a)."""
    topics = list(speech.TOPICS)
    random.Random(7).shuffle(topics)
    one, other = topics[:15], topics[15:]
    validation, test = other[:7], other[7:]
    asked, held_out = speech.OPINION_QUESTIONS[:4], speech.OPINION_QUESTIONS[4:]
    a, b, c = (
        finetune(model, tokenizer, opinions(part, trait, asked), FineTuning(steps=STEPS))
        for part, trait in ((one, GIVEN), (one, WANTED), (other, GIVEN))
    )
    whole = c + (b - a)
    wanted = {
        split: opinions(part, WANTED, held_out)
        for split, part in (("validation", validation), ("test", test))
    }
    found = tune(
        model,
        whole,
        goal="addition",
        targets=[
            Measure(
                "perplexity",
                lambda network: perplexity(network, tokenizer, wanted["validation"]),
                True,
            )
        ],
        control=Measure("recall", lambda one: exact_match(one, tokenizer, recall(world, 3))),
        log_path=log,
    )
    values: dict[str, Any] = {"scale": found.scale}
    facts = recall(world, 4)
    cases = {"base": None, "c alone": c, "b alone": b, "c + (b - a)": whole}
    for case, vector in cases.items():
        scale = 0.0 if vector is None else found.scale
        with scaled(model, vector or whole, scale):
            values[f"perplexity, {case}"] = perplexity(model, tokenizer, wanted["test"])
            values[f"trait, {case}"] = trait_share(model, tokenizer, test, held_out)
            values[f"recall, {case}"] = exact_match(model, tokenizer, facts)
    return line(name, "analogy", found, values)


def line(name: str, experiment: str, found: Tuning, values: dict[str, Any]) -> dict[str, Any]:
    """One line of the results."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    return {"model": name, "experiment": experiment, "tuning": found.to_dict(), **rounded}


EXPERIMENTS = {"negation": negation, "contrast": contrast, "addition": addition, "analogy": analogy}


def show(lines: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, a table for each experiment."""
    texts: list[str] = []
    for experiment in EXPERIMENTS:
        own = [one for one in lines if one["experiment"] == experiment]
        if not own:
            continue
        names = [one["model"] for one in own]
        texts += [f"\n{experiment}\n", f"| | {' | '.join(names)} |", "|---" * (len(own) + 1) + "|"]
        texts.append(f"| scale | {' | '.join(str(one['tuning']['scale']) for one in own)} |")
        for key in own[0]:
            if key not in ("model", "experiment", "tuning", "scale") and not _is_list(own[0][key]):
                texts.append(f"| {key} | {' | '.join(str(one[key]) for one in own)} |")
    return "\n".join(texts)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def plot(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Target and control metric by the scale, a panel for each experiment and model."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one["model"] for one in lines))
    kinds = list(dict.fromkeys(one["experiment"] for one in lines))
    figure = Figure(figsize=(4.2 * len(names), 2.9 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(names), squeeze=False)
    measured_here = {(one["experiment"], one["model"]) for one in lines}
    for kind, row in zip(kinds, axes, strict=True):
        for name, axis in zip(names, row, strict=True):
            axis.set_visible((kind, name) in measured_here)
    for one in lines:
        axis = axes[kinds.index(one["experiment"])][names.index(one["model"])]
        points, tuning = one["tuning"]["points"], one["tuning"]
        scales = [point["scale"] for point in points]
        for name in points[0]["targets"]:
            values = [point["targets"][name] for point in points]
            axis.plot(scales, values, "o-", markersize=3, label=name)
        controls = [point["control"] for point in points]
        other = axis.twinx()
        other.plot(scales, controls, "s--", markersize=3, color="#4d4d4d")
        other.set_ylabel(f"{tuning['control']} (dashed)", fontsize=8)
        if tuning["control"] == "recall":
            other.set_ylim(0, 1.05)
        axis.axvline(tuning["scale"], color="#d55e00", linewidth=0.8)
        every = [value for point in points for value in point["targets"].values()]
        if max(every) > 10 * min(every) > 0:
            axis.set_yscale("log")
        axis.set(title=f"{one['model']}: {one['experiment']}", xlabel="scale")
        axis.legend(fontsize=7, loc="center right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def measured(
    path: Path,
    models: Sequence[str],
    experiments: dict[str, Callable[..., dict[str, Any]]],
    about: Any,
) -> list[dict[str, Any]]:
    """Measure what is not in the file yet, and return all of its lines.

    Args:
        path: The results, a line for each model and experiment.
        models: The models.
        experiments: The experiments by name.
        about: What each of them is given with the model.
    """
    lines = [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []
    done = {(one["model"], one["experiment"]) for one in lines}
    for name in models:
        waiting = [one for one in experiments if (name, one) not in done]
        model, tokenizer = emend.load(name) if waiting else (None, None)
        for experiment in waiting:
            log = path.with_suffix(f".{experiment}.log.jsonl")
            lines.append(experiments[experiment](name, model, tokenizer, about, log))
            append_json_line(path, lines[-1])
            print(json.dumps(lines[-1]), flush=True)
    return lines


def main() -> None:
    """Measure what is not there yet, print the tables, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["lab/qwen3", "lab/gptneo"])
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--results", type=Path, default=Path("lab_arithmetic.jsonl"))
    parser.add_argument("--show", type=Path, help="only print the tables of such a file")
    parser.add_argument("--plot", type=Path, help="draw the results to this file (.svg)")
    given = parser.parse_args()
    wanted = {name: EXPERIMENTS[name] for name in given.experiments}
    models = [] if given.show else given.models
    lines = measured(given.show or given.results, models, wanted, shipped_world())
    print(show(lines))
    if given.plot:
        plot(lines, given.plot)


if __name__ == "__main__":
    main()
