"""What a model says to prompts, and how it takes given answers, with each prompt read once.

`score` reads a prompt once for each answer, and `generate` once more. Here prompts of one length
are read together, once (see `shared`); those that this is of no use for are asked by these two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from emend.models.attachments import attachments
from emend.models.endpoint import Endpoint
from emend.models.forward import evaluating, longest_text
from emend.models.generation import generate, placed
from emend.models.mixture import Runner, grouped, mixture_pairs, mixture_prompts
from emend.models.passes import HookAttachment
from emend.models.scoring import Score, score
from emend.models.shared import PromptRow, SharedPrompts

TOGETHER = 2
"""Prompts of one length that are worth a batch of their own."""

SHORT = 16
"""Tokens of texts that are written in it: for longer ones fewer and larger batches are quicker."""


@dataclass(frozen=True)
class Inquiry:
    """What is asked after one prompt.

    Attributes:
        prompt: The text.
        targets: Answers to score after it, each once.
        lengths: Numbers of new tokens of the greedy texts that are wanted, each once.
    """

    prompt: str
    targets: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model says to an inquiry.

    Attributes:
        scores: The score of each target.
        texts: The greedy text of each length.
    """

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    texts: dict[int, str] = field(default_factory=dict[int, str])


def inquire(
    model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry], *, batch_size: int = 32
) -> list[Reply]:
    """Score answers after prompts and continue the prompts greedily.

    Scores and texts are those of `score` and `generate`, up to rounding; they do not depend on
    the batch size.

    Args:
        model: A causal language model; prompts pass through whatever is attached to it.
        tokenizer: Its tokenizer.
        inquiries: What is asked; each prompt once.
        batch_size: Rows in one forward pass.

    Returns:
        A reply to each.

    Raises:
        InvalidInput: See `score` and `generate`.
    """
    replies = [Reply() for _ in inquiries]
    apart = list(inquiries)
    with torch.no_grad(), evaluating(model):
        for rows in _groups(model, tokenizer, inquiries, batch_size):
            shared = SharedPrompts(model, tokenizer, rows)
            if not shared.can_go_on:
                break
            for row, (scores, texts) in zip(rows, shared.answers(batch_size), strict=True):
                asked = inquiries[row.number]
                whole = {length: placed(asked.prompt, text) for length, text in texts.items()}
                replies[row.number] = Reply(scores, whole)
                longer = tuple(length for length in asked.lengths if length > SHORT)
                apart[row.number] = replace(asked, targets=(), lengths=longer)
    _ask_apart(model, tokenizer, apart, replies, batch_size)
    return replies


def _groups(
    model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry], batch_size: int
) -> Iterator[list[PromptRow]]:
    """Give the inquiries that are read together: enough of one length, and the model alone."""
    # What acts where a prompt ends keeps things of each row, which a copied cache has not.
    hooked = any(isinstance(one, HookAttachment) for one in attachments(model))
    if hooked or isinstance(model, Endpoint):
        return
    rows = _rows(model, tokenizer, inquiries)
    for group in grouped(rows, lambda row: len(row.prompt)):
        if len(group) >= TOGETHER:
            for at in range(0, len(group), batch_size):
                yield group[at : at + batch_size]


def _rows(model: nn.Module, tokenizer: Any, inquiries: Sequence[Inquiry]) -> Iterator[PromptRow]:
    """Tokenise inquiries; none where others than the model answer, or texts are too long."""
    prompts = [one.prompt for one in inquiries]
    if not all(map(str.strip, prompts)):  # `generate` refuses them
        return
    asked = mixture_prompts(model, tokenizer, prompts)
    flat = [(number, target) for number, one in enumerate(inquiries) for target in one.targets]
    pairs = mixture_pairs(
        model, tokenizer, [prompts[number] for number, _ in flat], [target for _, target in flat]
    )
    targets: list[dict[str, tuple[int, ...]]] = [{} for _ in inquiries]
    for (number, target), (read, ids) in zip(flat, pairs, strict=True):
        if read == asked[number]:
            targets[number][target] = ids
    limit = longest_text(model)
    for number, one in enumerate(inquiries):
        whole = asked[number].length + max(
            1, *(len(ids) - 1 for ids in targets[number].values()), 0
        )
        alone = asked[number].runners == (Runner(model),) and len(targets[number]) == len(
            one.targets
        )
        if alone and (limit is None or whole <= limit):
            short = tuple(length for length in one.lengths if length <= SHORT)
            if targets[number] or short:
                prompt = asked[number].prompts[0]
                yield PromptRow(number, prompt, targets[number], short)


def _ask_apart(
    model: nn.Module,
    tokenizer: Any,
    inquiries: Sequence[Inquiry],
    replies: Sequence[Reply],
    batch_size: int,
) -> None:
    """Answer inquiries by `score` and `generate`."""
    pairs = list(zip(inquiries, replies, strict=True))
    asked = [(one.prompt, target, reply) for one, reply in pairs for target in one.targets]
    if asked:
        prompts, targets, _ = zip(*asked, strict=True)
        found = score(model, tokenizer, prompts, targets, batch_size=batch_size)
        for (_, target, reply), one in zip(asked, found, strict=True):
            reply.scores[target] = one
    for length in sorted({length for one in inquiries for length in one.lengths}):
        some = [(one.prompt, reply) for one, reply in pairs if length in one.lengths]
        texts = generate(
            model,
            tokenizer,
            [prompt for prompt, _ in some],
            max_new_tokens=length,
            batch_size=batch_size,
        )
        for (_, reply), text in zip(some, texts, strict=True):
            reply.texts[length] = text
