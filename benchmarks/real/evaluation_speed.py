"""Compare the time of `emend.metrics.evaluate` with that of asking one probe at a time.

    python benchmarks/real/evaluation_speed.py --edits 20
    python benchmarks/real/evaluation_speed.py --edits 100 --method memit --fluency

The plain side below imports nothing of emend's metrics. It reads every (prompt, answer) by a pass
of its own, takes the log-probabilities of the whole vocabulary at every position, and generates
after every prompt with transformers' `generate`, which keeps a cache; first of the unedited model
and then of the patched one. Both sides run in one process on one thread, and are given in CPU
seconds. Values of all protocols are compared record by record. Records of CounterFact from number
6,000 on; the patch is of the first --patched edits, for what it says does not change the time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import emend
from emend import metrics, models
from emend.edits import answers
from emend.models.start import front_ids

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FIRST = 6000
MEASURES = ("reliability", "generalization", "portability", "locality")
LONG = 50
"""Tokens of a text of fluency."""


@dataclass(frozen=True)
class Heard:
    """What the model says to one prompt.

    Attributes:
        text: Its greedy continuation.
        means: Mean log-probability of a token of each answer.
        tops: The first choice at each token of an answer, with the token itself.
    """

    text: str
    means: Mapping[str, float]
    tops: Mapping[str, list[tuple[int, int]]]


class OneByOne:
    """Asks a model one thing at a time.

    Args:
        model: The model, with what is hooked to it.
        tokenizer: Its tokenizer.
        front: Token ids in front of every text.
    """

    def __init__(self, model: Any, tokenizer: Any, front: list[int]) -> None:
        self.model, self.tokenizer, self.front = model, tokenizer, front

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, behind those in front."""
        return self.front + self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def answer(self, prompt: str, answer: str) -> tuple[float, list[tuple[int, int]]]:
        """Mean log-probability of an answer's tokens, and the first choices at each."""
        start, whole = self.ids(prompt), self.ids(f"{prompt} {answer}")
        logits = self.model(input_ids=torch.tensor([whole]), use_cache=False).logits
        scores = logits[0].float().log_softmax(-1)  # (T, vocabulary)
        places = range(len(start), len(whole))
        sure = [scores[at - 1, whole[at]].item() for at in places]
        return sum(sure) / len(sure), [(int(scores[at - 1].argmax()), whole[at]) for at in places]

    @torch.no_grad()
    def text(self, prompt: str, length: int) -> str:
        """The greedy continuation of a prompt."""
        ids = torch.tensor([self.ids(prompt)])
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def hear(self, prompt: str, accepted: str, rival: str) -> Heard:
        """Ask everything about one prompt."""
        found = {one: self.answer(prompt, one) for one in (accepted, rival)}
        length = len(self.ids(f"{prompt} {accepted}")) - len(self.ids(prompt)) + 1
        text = self.text(prompt, length + accepted[-1:].isnumeric())
        means = {one: mean for one, (mean, _) in found.items()}
        return Heard(text, means, {one: tops for one, (_, tops) in found.items()})


def asked_of(record: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Measure, prompt, right answer and rival of each probe of a record."""
    new, true, near = (record[k] for k in ("target_new", "ground_truth", "locality_ground_truth"))
    return [
        ("reliability", record["prompt"], new, true),
        ("generalization", record["rephrase_prompt"], new, true),
        ("locality", record["locality_prompt"], near, new),
    ]


def values(measure: str, right: str, rival: str, old: Heard, new: Heard) -> dict[str, Any]:
    """The value after the edit by every protocol."""
    best, other = new.means[right], new.means[rival]
    rightness = sum(a == b for a, b in new.tops[right]) / len(new.tops[right])
    found = {
        "exact_match": float(answers.states_answer(new.text, [right])),
        "teacher_forced": rightness,
        "probability": float(best > other),
        "magnitude": math.exp(best) - math.exp(other),
    }
    if measure == "locality":
        pairs = list(zip(old.tops[right], new.tops[right], strict=True))
        found["correct"], found["correct_tokens"] = found["exact_match"], rightness
        found["exact_match"] = float(answers.same_reply(old.text, new.text, [right]))
        found["teacher_forced"] = sum(a == b for (a, _), (b, _) in pairs) / len(pairs)
    return found


def plain_values(
    plain: OneByOne, patch: Any, records: list[dict[str, Any]], fluency: bool
) -> tuple[dict[tuple[str, str], dict[str, Any]], float]:
    """Values by measure and prompt of the plain side, and the CPU seconds of fluency in them."""
    heard: list[list[Heard]] = []
    long = 0.0
    for is_edited in (False, True):
        with patch.applied(plain.model) if is_edited else models.base(plain.model):
            heard.append([plain.hear(*one[1:]) for record in records for one in asked_of(record)])
            began = time.process_time()
            for record in records if fluency else ():
                plain.text(record["prompt"], LONG)
            long += time.process_time() - began
    asked = [one for record in records for one in asked_of(record)]
    found = {
        (one[0], one[1].strip()): values(one[0], one[2], one[3], old, new)
        for one, old, new in zip(asked, *heard, strict=True)
    }
    return found, long


def largest_difference(found: Mapping[Any, Mapping[str, Any]], report: Any) -> tuple[float, int]:
    """How far any value is from that of the plain side, and how many were compared."""
    worst, count = 0.0, 0
    for record in report.records:
        theirs = found[record["metric"], record["prompt"]]
        mine = {name: value["after"] for name, value in record["protocols"].items()}
        count += len(mine)
        worst = max([worst, *(abs(value - theirs[name]) for name, value in mine.items())])
    return worst, count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="memit")
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--patched", type=int, default=3, help="edits in the patch")
    parser.add_argument("--fluency", action="store_true", help="measure fluency too, and its share")
    parser.add_argument("--fast_only", action="store_true", help="leave the plain side out")
    parser.add_argument("--output_path", type=Path, default=Path("results/evaluation_speed"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(given.model, dtype="float32")
    models.ensure_start(model, tokenizer)
    path = SHARED / "counterfact" / "counterfact-train.json"
    records = json.loads(path.read_text(encoding="utf-8"))[FIRST : FIRST + given.edits]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "some.json").write_text(json.dumps(records), encoding="utf-8")
        edits = emend.datasets.read(Path(folder) / "some.json").edits
    place = given.output_path / f"{given.model}-{given.method}-{given.patched}"
    if not place.exists():
        made = emend.edit(model, tokenizer, edits[: given.patched], method=given.method)
        made.save_pretrained(place)
    patch = emend.load_patch(place)
    seconds: dict[str, float] = {}
    reports: dict[str, Any] = {}
    for name, chosen in (("four", MEASURES), ("fluency", ("fluency",)))[: 1 + given.fluency]:
        began = time.process_time()
        with patch.applied(model):
            reports[name] = metrics.evaluate(model, tokenizer, edits, metrics=chosen)
        seconds[name] = time.process_time() - began
    print(f"evaluate: {seconds} CPU s of {given.edits} edits", flush=True)
    if given.fast_only:
        return
    began = time.process_time()
    plain = OneByOne(model, tokenizer, list(front_ids(tokenizer)))
    found, long = plain_values(plain, patch, records, given.fluency)
    alone = time.process_time() - began - long
    print(f"one at a time: {alone:.1f} CPU s, fluency {long:.1f} CPU s more", flush=True)
    worst, count = largest_difference(found, reports["four"])
    print(f"ratio {alone / seconds['four']:.1f}; largest difference of {count} values {worst:.1e}")
    if given.fluency:
        both = sum(seconds.values())
        share = seconds["fluency"] / both
        print(f"with fluency: ratio {(alone + long) / both:.1f}, of which fluency {share:.0%}")


if __name__ == "__main__":
    main()
