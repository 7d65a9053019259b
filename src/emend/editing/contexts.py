"""MEMIT's contexts: the bare prompt, and one text begun by each of five words (spec S2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from emend.editing.templates import BARE, sample_templates, sample_texts
from emend.models.start import front_ids

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
