"""Context templates: short texts before the prompt, so that a key is one for any context.

They are sampled from the model itself (Meng et al. 2022, arXiv 2202.05262, section 3.1) with a
private generator, so that a seed gives the same templates and no global state changes.
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
"""ROME: ten samples of 5 tokens and ten of 10, the first token included."""

SAMPLES = 1 + sum(count for _, count in LENGTHS)
"""Templates by default, the bare one included."""

TOP = 5
"""Each token is sampled from this many most probable ones."""


def sample_templates(
    model: nn.Module,
    tokenizer: Any,
    *,
    seed: int = 0,
    lengths: tuple[tuple[int, int], ...] = LENGTHS,
) -> tuple[str, ...]:
    """Return the bare template and samples of the model, each followed by ". {}".

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        seed: Seed of the private generator.
        lengths: Pairs of a length in tokens (the first included) and a number of samples.

    Returns:
        The bare "{}", then the samples; empty ones are left out.
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
    """Sample texts of ``length`` tokens, each token from the five most probable.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        ids: (B, T) int64, tokens that the texts begin with.
        length: Tokens of each text, the first ones included.
        generator: The random generator.

    Returns:
        B texts of one line each, without braces; they may be empty.

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
    """Make one line without braces (which mark places) and broken characters."""
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
    """Return the bare template, and for each word the model's continuation, then ". {}".

    Words that the tokenizer does not know are left out; where it knows none, five texts without a
    given beginning are sampled.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        seed: Seed of a private generator.
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
        count: Most templates, the bare one included.
        sample: (model, tokenizer, seed=) -> templates, the bare one first.
    """

    count: int
    sample: Callable[..., tuple[str, ...]]


ROME_CONTEXTS = Contexts(SAMPLES, sample_templates)
"""The bare prompt and 20 samples, as ROME is published."""

BEGUN = Contexts(1 + len(STARTS), begun_templates)
"""The bare prompt and one text begun by each of five words, as MEMIT is published."""
