"""Time the value search of ROME against the plain reference loop, and see that they agree.

    python benchmarks/value_search.py                 # 1 edit and 32 edits: some 4 CPU minutes
    python benchmarks/value_search.py --edits 8       # fewer edits in the batch
    python benchmarks/value_search.py --json

A random model of GPT-2 small's shape (12 layers, width 768, vocabulary 50,257), layer 5, 22 rows
(21 contexts and the row of the KL term), 20 steps, one CPU thread, everything in one process. The
rows of the first edit have up to 29 tokens, 7 of them from the subject's last token on; those of
the batch are ragged, with the same mean. The reference (`tests/reference`) runs the first edit.

How much can be gained depends on these lengths alone, so the limit is counted too: the reference
runs every block over every token, and the head; the search runs the blocks above the layer over
the tokens from the subject on. Both run backwards through the blocks above the layer only.
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
NAMES = ("Maria Elena Lindqvist", "Jonas Berg", "Ada Okoye", "Tomas de la Cruz", "Ines Novak")
BEFORE = "In the last chapter of these old memoirs we read that".split()
AFTER = "had spent nearly all of the later years working in".split()
TARGETS = ("Lisbon", "Aarhus", "Porto Alegre", "Krakow", "Bergen")
AFTER_COUNTS = (6, 4, 7, 5, 7)  # with targets of 1, 1, 2, 1 and 1 tokens: 7 tokens in the mean


class Words:
    """A tokenizer for the benchmark: a word is a token, its id a hash; with character offsets."""

    is_fast = True
    pad_token_id = eos_token_id = 0
    all_special_ids = (0,)

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.words: dict[int, str] = {}

    def __call__(self, texts, return_tensors=None, **options):
        """Ids and character offsets of one text or of several."""
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
        """The words of ids seen before."""
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
    """Edits whose rows are ragged on both sides of the subject; the first is of mean length."""
    edits: list[Edit] = []
    for number in range(count):
        kind = number % len(NAMES)
        before = BEFORE[: len(BEFORE) - (number // len(NAMES)) % 4]
        prompt = " ".join([*before, "{}", *AFTER[-AFTER_COUNTS[kind] :]])
        edits.append(Edit(prompt, f"{NAMES[kind]} {number}" if number else NAMES[0], TARGETS[kind]))
    return edits


def counted(rows: reference.Rows, steps: int) -> float:
    """Multiplications of the reference over those of the search."""
    block, head, layers = 12 * 768**2, 768 * 50257, 12
    above = layers - 1 - LAYER
    lengths = rows.attention_mask.sum(1)
    tokens = rows.input_ids.numel()  # the reference pads
    suffix = int((lengths - torch.tensor(rows.lookup)).sum()) - 1  # of the KL row one token
    plain = tokens * (block * (layers + above) + 2 * head)
    ours = suffix * block * 2 * above + 2 * head * len(rows.lookup) * len(rows.target_ids)
    return steps * plain / (steps * ours + tokens * block * layers)


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
    parser.add_argument("--steps", type=int, default=20, help="steps of one edit")
    parser.add_argument("--batch_steps", type=int, default=5, help="steps of the batch")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    view, tokenizer, templates = ModelView(model), Words(50257), contexts()
    site, edits = view.down_projection(LAYER), make_edits(arguments.edits)
    rows = reference.build_rows(
        tokenizer, edits[0].prompt, edits[0].subject, edits[0].target, templates
    )

    def search(chosen: list[Edit], steps: int):
        settings = SearchSettings(steps=steps, stop_below=-1.0)
        return search_values(view, tokenizer, chosen, templates, LAYER, settings)

    def plain(steps: int):
        return reference.search_value(model, site, rows, steps=steps, stop_below=-1.0)

    search(edits[:1], 2)  # warm up
    one_seconds, (one,) = timed(lambda: search(edits[:1], arguments.steps))
    plain_seconds, expected = timed(lambda: plain(arguments.steps))
    short_expected, (short,) = plain(5), search(edits[:1], 5)
    # Lengths differ between the kinds of edits, so one of each is sought alone.
    alone_seconds, alone = timed(
        lambda: [search([edit], arguments.batch_steps)[0] for edit in edits[: len(NAMES)]]
    )
    many_seconds, many = timed(lambda: search(edits, arguments.batch_steps))
    alone_seconds /= len(alone)
    result = {
        "rows": len(rows.lookup),
        "tokens_of_longest_row": rows.input_ids.shape[1],
        "tokens_from_subject": int(rows.attention_mask[0].sum()) - rows.lookup[0],
        "steps": arguments.steps,
        "reference_cpu_seconds": plain_seconds,
        "one_edit_cpu_seconds": one_seconds,
        "one_edit_ratio": plain_seconds / one_seconds,
        "counted_limit": counted(rows, arguments.steps),
        "z_error_after_5_steps": difference(short.sought, short_expected.v_star),
        f"z_error_after_{arguments.steps}_steps": difference(one.sought, expected.v_star),
        "batch_steps": arguments.batch_steps,
        "alone_cpu_seconds_per_edit": alone_seconds,
        "batch_edits": len(edits),
        "batch_cpu_seconds_per_edit": many_seconds / len(edits),
        "batch_per_edit_over_alone": many_seconds / len(edits) / alone_seconds,
        "batch_z_error": max(
            difference(one.sought, other.sought) for one, other in zip(many, alone, strict=False)
        ),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(
            f"{name.replace('_', ' '):<38}", f"{value:.3g}" if isinstance(value, float) else value
        )


if __name__ == "__main__":
    main()
