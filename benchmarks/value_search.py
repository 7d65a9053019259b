"""Time the value search of ROME against the plain reference loop, and see that they agree.

    python benchmarks/value_search.py                 # 1 edit and 32 edits, about three minutes
    python benchmarks/value_search.py --edits 8       # fewer edits in the batch
    python benchmarks/value_search.py --json

A random model of GPT-2 small's shape (12 layers, width 768, vocabulary 50,257), layer 5, 22 rows
(21 contexts and the row of the KL term), 20 steps, one CPU thread, everything in one process. The
reference (`tests/reference`) runs one edit: it takes the same time for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.reference import rome as reference  # noqa: E402

from emend.edits import Edit  # noqa: E402
from emend.keyvalue import SearchSettings, search_values  # noqa: E402
from emend.models import ModelView  # noqa: E402

LAYER = 5
NAMES = ("Maria Lindqvist", "Jonas Abara Berg", "Ada Okoye", "Tomas de la Cruz", "Ines Novak")
PROMPTS = (
    "{} was born in the city of",
    "The mother tongue of {} is",
    "{} works for the company",
    "The favourite instrument of {} has always been the",
    "{} plays the sport of",
)
TARGETS = ("Lisbon", "Danish", "Nordlicht", "cello", "water polo")


class Words:
    """A tokenizer for the benchmark: a word is a token, its id a hash; with character offsets."""

    is_fast = True
    pad_token_id = eos_token_id = 0
    all_special_ids = (0,)

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.words: dict[int, str] = {}

    def __call__(self, texts, return_tensors=None, **options):
        if isinstance(texts, str):
            encoded = self([texts], **options)
            return {name: value[0] for name, value in encoded.items()}
        ids, offsets = [], []
        for text in texts:
            spans, start = [], 0
            for word in text.split(" "):
                if word:
                    spans.append((start, start + len(word)))
                start += len(word) + 1
            offsets.append(spans)
            ids.append([self._id(text[a:b]) for a, b in spans])
        special = [[0] * len(row) for row in ids]
        return {"input_ids": ids, "offset_mapping": offsets, "special_tokens_mask": special}

    def _id(self, word: str) -> int:
        number = 0
        for character in word:
            number = (number * 131 + ord(character)) % (self.vocabulary - 1)
        self.words[number + 1] = word
        return number + 1

    def decode(self, ids) -> str:
        return "".join(" " + self.words[int(number)] for number in ids)


def contexts() -> tuple[str, ...]:
    """The bare prompt, and ten contexts each of 4 and of 9 words."""
    generator = torch.Generator().manual_seed(0)
    words = "the a new model of said that it was number people have city small old in on by".split()
    templates = ["{}"]
    for length in (4, 9):
        for _ in range(10):
            drawn = torch.randint(len(words), (length,), generator=generator).tolist()
            templates.append(" ".join(words[n] for n in drawn) + " . {}")
    return tuple(templates)


def make_edits(count: int) -> list[Edit]:
    """Edits with subjects of two to four tokens and one to seven tokens after them."""
    edits = []
    for number in range(count):
        subject = f"{NAMES[number % len(NAMES)]} {number}"
        prompt = PROMPTS[(number // len(NAMES) + number) % len(PROMPTS)]
        edits.append(Edit(prompt, subject, TARGETS[number % len(TARGETS)]))
    return edits


def timed(function):
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=32, help="edits in the batch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    view, tokenizer, templates = ModelView(model), Words(50257), contexts()
    site, edits = view.down_projection(LAYER), make_edits(arguments.edits)
    first = edits[0]

    def search(count: int, steps: int):
        settings = SearchSettings(steps=steps, stop_below=-1.0)
        return search_values(view, tokenizer, edits[:count], templates, LAYER, settings)

    def plain(steps: int):
        rows = reference.build_rows(
            tokenizer, first.prompt, first.subject, first.target, templates
        )
        return rows, reference.search_value(
            model, site, rows, steps=steps, stop_below=-1.0
        )

    search(1, 2)  # warm up
    one_seconds, (one,) = timed(lambda: search(1, arguments.steps))
    many_seconds, many = timed(lambda: search(len(edits), arguments.steps))
    plain_seconds, (rows, expected) = timed(lambda: plain(arguments.steps))
    (short,), (_, short_expected) = search(1, 5), plain(5)
    result = {
        "rows": len(rows.lookup),
        "tokens_from_subject": int(rows.attention_mask[0].sum()) - rows.lookup[0],
        "steps": arguments.steps,
        "reference_seconds": plain_seconds,
        "one_edit_seconds": one_seconds,
        "one_edit_ratio": plain_seconds / one_seconds,
        "edits": len(edits),
        "seconds_per_edit": many_seconds / len(edits),
        "batch_ratio": plain_seconds * len(edits) / many_seconds,
        "per_edit_over_one_edit": many_seconds / len(edits) / one_seconds,
        "z_error_after_5_steps": difference(short.sought, short_expected.v_star),
        f"z_error_after_{arguments.steps}_steps": difference(one.sought, expected.v_star),
        "z_error_batched": difference(many[0].sought, one.sought),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):<28}", f"{value:.3g}" if isinstance(value, float) else value)


if __name__ == "__main__":
    main()
