"""Cut documents into batches of token ids; reading can resume after any batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from emend.editing.samples import OwnSamples
from emend.editing.texts import Source
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.models.forward import batches, longest_text
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, prompt_tokens, text_tokens
from emend.models.start import front_ids

TOGETHER = 64
"""Documents tokenized at once."""


WINDOW = 512
"""Tokens of a window by default; less where the model reads less."""

ROWS, ROWS_ON_CPU = 8, 2
"""Windows in one pass by default; on a CPU, as many as its cache holds."""

TEXTS_A_WINDOW = 16
"""Texts run at once in place of each window, where each text is a row."""


@dataclass
class Position:
    """How far a source has been read.

    Attributes:
        documents: Documents read (packed), or rows run (in order of length).
        tokens: Tokens run.
        pending: Tokens read and not yet run.
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
        tokens: Number of tokens without padding and start tokens.
    """

    input_ids: Tensor
    real: Tensor | None
    tokens: int


@dataclass(frozen=True)
class Layout:
    """How a source is cut.

    Attributes:
        window: Tokens of a window, or of the longest row where each document is a row.
        rows: Rows in one pass.
        limit: Total number of tokens; None for all.
    """

    window: int
    rows: int
    limit: int | None = None


def layout_for(
    view: ModelView,
    source: Source,
    max_tokens: int | None = None,
    window: int = WINDOW,
    batch_size: int | None = None,
) -> Layout:
    """Decide how a source is cut for a model; see `collect_covariance`.

    Raises:
        InvalidInput: A window, batch size or number of tokens is below 1.
    """
    for name, value in (("window", window), ("batch_size", batch_size), ("tokens", max_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is {value}, expected at least 1")
    longest = longest_text(view.model)
    place = device_of(view.embeddings).type
    rows = batch_size or (ROWS_ON_CPU if place == "cpu" else ROWS)
    if source.packed:
        return Layout(min(window, longest or window), rows, max_tokens)
    if isinstance(source, OwnSamples):
        return Layout(source.length + 1, TEXTS_A_WINDOW * rows, max_tokens)
    return Layout(longest or 1 << 30, TEXTS_A_WINDOW * rows, max_tokens)


def batches_of(
    source: Source, tokenizer: Any, layout: Layout, position: Position
) -> Iterator[Batch]:
    """Yield the batches of a source from a position on.

    Args:
        source: The texts.
        tokenizer: The model's.
        layout: How to cut them.
        position: Where to begin. It is updated to the end of each batch before that is yielded.

    Raises:
        InvalidInput: A text has no tokens.
    """
    if isinstance(source, OwnSamples):
        return _sampled(source, tokenizer, layout, position)
    run = _packed if source.packed else _apart
    return run(source, tokenizer, layout, position)


def _packed(source: Source, tokenizer: Any, layout: Layout, position: Position) -> Iterator[Batch]:
    """Yield windows without padding; the last may be shorter, and is a batch of its own.

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
    """Yield the model's own samples, all of equal length."""
    rows = source.rows()  # first: this may set the start token that `front_ids` reads
    front = len(front_ids(tokenizer))
    for start in range(position.documents, len(rows), layout.rows):
        batch = rows[start : start + layout.rows]
        real = torch.ones_like(batch, dtype=torch.bool)
        real[:, :front] = False
        position.documents += len(batch)
        position.tokens += int(real.sum())
        yield Batch(batch, real.flatten() if front else None, int(real.sum()))


def _apart(source: Source, tokenizer: Any, layout: Layout, position: Position) -> Iterator[Batch]:
    """Yield each document as a row cut to the window; rows of similar length share a batch."""
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
    """Count the start tokens of a row; a row of nothing else has none."""
    begins = len(row) > len(front) and tuple(row[: len(front)]) == front
    return len(front) if begins else 0
