"""From documents to batches of token ids that can be gone on with after any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from emend.editing.samples import OwnSamples
from emend.editing.texts import Source
from emend.models.forward import batches
from emend.models.positions import pad, pad_id, prompt_tokens, text_tokens
from emend.models.start import front_ids

TOGETHER = 64
"""Documents that are tokenized at once."""


@dataclass
class Position:
    """How far a source has been read.

    Attributes:
        documents: Documents taken (packed), or rows run (of those sorted by length).
        tokens: Tokens that have been run.
        pending: Tokens that were taken and not yet run.
    """

    documents: int = 0
    tokens: int = 0
    pending: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Batch:
    """Rows to run in one pass.

    Attributes:
        input_ids: (B, T) int64, padded on the right.
        real: (B * T,) bool, False at padding and at start tokens; None where there are none.
        tokens: Number of tokens without these.
    """

    input_ids: Tensor
    real: Tensor | None
    tokens: int


@dataclass(frozen=True)
class Layout:
    """How a source is cut.

    Attributes:
        window: Tokens of a window, or the longest row where documents are rows of their own.
        rows: Rows in one pass.
        limit: Tokens to take in all; None takes all there are.
    """

    window: int
    rows: int
    limit: int | None = None


def batches_of(
    source: Source, tokenizer: Any, layout: Layout, position: Position
) -> Iterator[Batch]:
    """The batches of a source from a position on.

    Args:
        source: The texts.
        tokenizer: The model's.
        layout: How to cut them.
        position: Where to begin. It is moved: when a batch comes, it stands after that batch.

    Raises:
        InvalidInput: A text without tokens.
    """
    if isinstance(source, OwnSamples):
        return _sampled(source, tokenizer, layout, position)
    run = _packed if source.packed else _apart
    return run(source, tokenizer, layout, position)


def _packed(source: Source, tokenizer: Any, layout: Layout, position: Position) -> Iterator[Batch]:
    """Windows without padding; the last may be shorter, and is a batch of its own.

    Each begins with the start token, which is not counted: at position 0 any token has the key of
    an attention sink.
    """
    end = getattr(tokenizer, "eos_token_id", None)
    front = front_ids(tokenizer)
    window = max(layout.window - len(front), 1)
    size = window * layout.rows
    documents = source.documents(position.documents)
    while True:
        left = None if layout.limit is None else layout.limit - position.tokens
        wanted = size if left is None else min(size, left)
        while len(position.pending) < wanted and (texts := list(islice(documents, TOGETHER))):
            position.documents += len(texts)
            for ids in text_tokens(tokenizer, texts):
                position.pending += ids
                if isinstance(end, int):
                    position.pending.append(end)
        taken = position.pending[:wanted]
        if not taken:
            return
        # Whole windows first; what is left of the source, or of the limit, comes after them.
        whole = len(taken) - len(taken) % window or len(taken)
        del position.pending[:whole]
        position.tokens += whole
        rows = torch.tensor(taken[:whole]).reshape(-1, min(whole, window))  # (B, T)
        if not front:
            yield Batch(rows, None, whole)
            continue
        rows = torch.cat([torch.tensor([front]).expand(len(rows), -1), rows], dim=1)
        real = torch.ones_like(rows, dtype=torch.bool)
        real[:, : len(front)] = False
        yield Batch(rows, real.flatten(), whole)


def _sampled(
    source: OwnSamples, tokenizer: Any, layout: Layout, position: Position
) -> Iterator[Batch]:
    """Samples of the model's own, all equally long."""
    rows = source.rows()  # before its start is asked for, which it may have to find
    front = len(front_ids(tokenizer))
    for start in range(position.documents, len(rows), layout.rows):
        batch = rows[start : start + layout.rows]
        real = torch.ones_like(batch, dtype=torch.bool)
        real[:, :front] = False
        position.documents += len(batch)
        position.tokens += int(real.sum())
        yield Batch(batch, real.flatten() if front else None, int(real.sum()))


def _apart(source: Source, tokenizer: Any, layout: Layout, position: Position) -> Iterator[Batch]:
    """Each document a row, cut to the window; rows of like length together."""
    rows: list[list[int]] = []
    count, front = 0, front_ids(tokenizer)
    documents = source.documents()
    while texts := list(islice(documents, TOGETHER)):
        for ids in prompt_tokens(tokenizer, texts):
            if layout.limit is None or count < layout.limit:
                rows.append(ids[: layout.window])
                count += len(rows[-1]) - _fronted(rows[-1], front)
    done = 0
    for members in batches([len(row) for row in rows], layout.rows):
        done += len(members)
        if done <= position.documents:
            continue
        batch = pad([rows[n] for n in members], pad_id(tokenizer))
        mask = batch.attention_mask.bool()  # (B, T)
        for place, number in enumerate(members):
            mask[place, : _fronted(rows[number], front)] = False
        position.documents = done
        position.tokens += int(mask.sum())
        yield Batch(batch.input_ids, mask.flatten(), int(mask.sum()))


def _fronted(row: list[int], front: tuple[int, ...]) -> int:
    """How many tokens of a row are the start token's; none of a row that is nothing else."""
    begins = len(row) > len(front) and tuple(row[: len(front)]) == front
    return len(front) if begins else 0
