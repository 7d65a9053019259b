"""Context templates: short texts put before the prompt, so that a key holds in any context.

Sampled from the model itself (Meng et al. 2022, arXiv 2202.05262, section 3.1) with a generator of
its own, so that a seed gives the same templates and no global state changes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend.models.sampling import sample
from emend.models.start import front_ids

BARE = "{}"
"""The prompt without any context."""

LENGTHS = ((5, 10), (10, 10))
"""ROME's: ten samples of 5 tokens in all and ten of 10, each counting the first token."""

SAMPLES = 1 + sum(count for _, count in LENGTHS)
"""Templates by default, the bare one included."""

TOP = 5
"""Candidates of each sampled token."""


def sample_templates(
    model: nn.Module,
    tokenizer: Any,
    *,
    seed: int = 0,
    lengths: tuple[tuple[int, int], ...] = LENGTHS,
) -> tuple[str, ...]:
    """The bare template and samples of the model's own, each followed by ". {}".

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        seed: Of the private generator.
        lengths: Pairs of a length in tokens (the first token included) and how many samples.

    Returns:
        1 + the number of samples; the first is the bare "{}". Samples without any text are
        left out.
    """
    generator = torch.Generator().manual_seed(seed)
    templates, front = [BARE], front_ids(tokenizer) or (_first_token(tokenizer),)
    for length, count in lengths:
        first = torch.tensor([front] * count)  # (B, 1)
        texts = sample_texts(model, tokenizer, first, length, generator)
        templates.extend(f"{text}. {BARE}" for text in texts if text)
    return tuple(templates)


def sample_texts(
    model: nn.Module, tokenizer: Any, ids: Tensor, length: int, generator: torch.Generator
) -> list[str]:
    """Texts of ``length`` tokens, each sampled from the five likeliest that may follow.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        ids: (B, T) int64, what the texts begin with.
        length: Tokens of each text, the first ones included.
        generator: Draws them.

    Returns:
        B texts, each one line without braces; they may be empty.

    Raises:
        NumericalFailure: The model's logits are not finite.
    """
    ids = sample(model, tokenizer, ids, length, generator, top=TOP)
    return [_cleaned(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _first_token(tokenizer: Any) -> int:
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(tokenizer, name, None)
        if isinstance(value, int):
            return value
    return 0


def _cleaned(text: str) -> str:
    """One line without braces, which would be taken for places, and without broken characters."""
    text = unicodedata.normalize("NFKC", text).replace("\ufffd", "")
    text = text.replace("{", "").replace("}", "")
    return " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())


STARTS = ("The", "Therefore", "Because", "I", "You")
LENGTH = 10
"""Tokens sampled after each word."""


def begun_templates(
    model: nn.Module,
    tokenizer: Any,
    *,
    seed: int = 0,
    starts: tuple[str, ...] = STARTS,
    length: int = LENGTH,
) -> tuple[str, ...]:
    """The bare template, and for each word a continuation of the model's own, then ". {}".

    Words that the tokenizer does not know are left out; where it knows none of them, five texts
    without a given beginning are sampled.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        seed: Of a private generator.
        starts: The words.
        length: Tokens sampled after each.
    """
    generator = torch.Generator().manual_seed(seed)
    templates, front = [BARE], front_ids(tokenizer)
    for start in starts:
        ids: list[int] = tokenizer(start, add_special_tokens=False)["input_ids"]
        if not ids or getattr(tokenizer, "unk_token_id", None) in ids:
            continue
        beginning = torch.tensor([[*front, *ids]])  # (1, T)
        size = len(front) + len(ids) + length
        (text,) = sample_texts(model, tokenizer, beginning, size, generator)
        if text:
            templates.append(f"{text}. {BARE}")
    if len(templates) == 1:
        return sample_templates(model, tokenizer, seed=seed, lengths=((length, len(starts)),))
    return tuple(templates)


@dataclass(frozen=True)
class Contexts:
    """A way to sample context templates.

    Attributes:
        count: How many there are at most, the bare one included.
        sample: (model, tokenizer, seed=) -> templates, the bare one first.
    """

    count: int
    sample: Callable[..., tuple[str, ...]]


ROME_CONTEXTS = Contexts(SAMPLES, sample_templates)
"""The bare prompt and 20 samples, as ROME is published."""

BEGUN = Contexts(1 + len(STARTS), begun_templates)
"""The bare prompt and one text begun by each of five words, as MEMIT is published."""
