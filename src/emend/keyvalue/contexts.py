"""MEMIT's contexts: the bare prompt, and one text begun by each of five words (spec S2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emend.keyvalue.templates import BARE, TOP, sample_templates
from emend.keyvalue.templates import _cleaned as cleaned  # pyright: ignore[reportPrivateUsage]
from emend.models._forward import evaluating
from emend.models.placing import device_of

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
    templates = [BARE]
    for start in starts:
        ids: list[int] = tokenizer(start, add_special_tokens=False)["input_ids"]
        if not ids or getattr(tokenizer, "unk_token_id", None) in ids:
            continue
        text = _continued(model, tokenizer, ids, length, generator)
        if text:
            templates.append(f"{text}. {BARE}")
    if len(templates) == 1:
        return sample_templates(model, tokenizer, seed=seed, lengths=((length, len(starts)),))
    return tuple(templates)


def _continued(
    model: nn.Module, tokenizer: Any, ids: list[int], length: int, generator: torch.Generator
) -> str:
    """The text of ``ids`` and ``length`` tokens more, each drawn from the five likeliest."""
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.long)
    row = torch.tensor([ids], device=device_of(embeddings))  # (1, T)
    with torch.no_grad(), evaluating(model):
        for _ in range(length):
            logits: Tensor = model(input_ids=row, use_cache=False).logits[0, -1].float().cpu()
            logits[special[special < len(logits)]] = -torch.inf
            best = logits.topk(min(TOP, len(logits)))
            drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
            row = torch.cat([row, best.indices[drawn][None].to(row.device)], dim=1)
    return cleaned(tokenizer.decode(row[0], skip_special_tokens=True))
