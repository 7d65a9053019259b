"""What the benchmarks share: a model of GPT-2 small's shape, its tokenizer, edits, and clocks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.reference

from emend.edits import Edit

DEPTH, WIDTH, INNER, VOCABULARY = 12, 768, 3072, 50257
BLOCK, HEAD = 12 * WIDTH**2, WIDTH * VOCABULARY
"""Multiplications for one token of a block and of the head."""

NAMES = ("Maria Elena Lindqvist", "Jonas Berg", "Ada Okoye", "Tomas de la Cruz", "Ines Novak")
BEFORE = "In the last chapter of these old memoirs we read that".split()
AFTER = "had spent nearly all of the later years working in".split()
TARGETS = ("Lisbon", "Aarhus", "Porto Alegre", "Krakow", "Bergen")
AFTER_COUNTS = (6, 4, 7, 5, 7)  # with targets of 1, 1, 2, 1 and 1 tokens: 7 tokens in the mean

Result = TypeVar("Result")


class Words:
    """A tokenizer for benchmarks: a word is a token, its id a hash; with character offsets."""

    is_fast = True
    pad_token_id = eos_token_id = 0
    all_special_ids = (0,)

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
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

    def decode(self, ids, **_options) -> str:
        """The words of ids; of those not seen before, the number."""
        return "".join(" " + self.words.get(int(number), f"<{number}>") for number in ids)


def small_model() -> GPT2LMHeadModel:
    """A random model of GPT-2 small's shape, always the same; one thread from here on."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def contexts(lengths: Sequence[int] = (4, 9), each: int = 10) -> tuple[str, ...]:
    """The bare prompt, and this many contexts of each number of words (ROME's by default)."""
    generator = torch.Generator().manual_seed(0)
    words = "the a new model of said that it was number people have city small old in on by".split()
    templates = ["{}"]
    for length in lengths:
        for _ in range(each):
            drawn = torch.randint(len(words), (length,), generator=generator).tolist()
            templates.append(" ".join(words[n] for n in drawn) + " . {}")
    return tuple(templates)


def ragged_edits(count: int) -> list[Edit]:
    """Edits whose rows are ragged on both sides of the subject; the first is of mean length."""
    edits: list[Edit] = []
    for number in range(count):
        kind = number % len(NAMES)
        before = BEFORE[: len(BEFORE) - (number // len(NAMES)) % 4]
        prompt = " ".join([*before, "{}", *AFTER[-AFTER_COUNTS[kind] :]])
        edits.append(Edit(prompt, f"{NAMES[kind]} {number}" if number else NAMES[0], TARGETS[kind]))
    return edits


def even_edits(count: int, before: int, after: int) -> list[Edit]:
    """Edits of one length: this many words before and after a subject of three, targets of one."""
    prompt = " ".join([*BEFORE[-before:], "{}", *AFTER[-after:]])
    return [Edit(prompt, f"Maria Berg {n}", f"{TARGETS[0]}{n}") for n in range(count)]


def random_texts(tokens: int, length: int = 128) -> tuple[str, ...]:
    """Texts of random words for key covariances, with this many tokens in all."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(1_000_000, (tokens // length, length), generator=generator)
    return tuple(" ".join(f"w{n}" for n in row) for row in drawn.tolist())


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def difference(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over that of what is expected."""
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def machine_peak(size: int = 1536) -> float:
    """Floating-point operations a second of a float32 matrix product, in billions, one thread."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    torch.mm(left, right)
    seconds = min(timed(lambda: torch.mm(left, right))[0] for _ in range(4))
    return 2 * size**3 / seconds / 1e9


def load() -> str:
    """What else the machine does: a note for the reader of ratios."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows in columns as wide as they need; the first holds their names."""
    text = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in text) for n in range(len(text[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in text
    )


def _shown(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def rank_correlation(found: Tensor, expected: Tensor) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank."""
    ranks = torch.stack([_ranks(found.flatten()), _ranks(expected.flatten())])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    _, groups, counts = values.double().unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts - 1) / 2)[groups]
