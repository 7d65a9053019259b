"""Layouts: how rows of different lengths are padded, and which columns are run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emend.errors import InvalidInput

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Window:
    """Which tokens of each row are run again.

    Attributes:
        first: (B,) int64, column of the first token.
        size: Number of tokens, S.
        length: Number of columns in all, T.
    """

    first: Tensor
    size: int
    length: int

    @property
    def columns(self) -> Tensor:
        """(B, S) int64."""
        return self.first[:, None] + torch.arange(self.size)

    @property
    def common(self) -> int | None:
        """Return the first column where it is the same for all rows, else None."""
        first = int(self.first[0])
        return first if bool((self.first == first).all()) else None

    def select(self, rows: Tensor) -> Window:
        """Return the same for some of the rows only."""
        return replace(self, first=self.first[rows])

    def of(self, hidden: Tensor) -> Tensor:
        """Pick the window's tokens, (B, T, features) -> a copy (B, S, features)."""
        columns = self.columns.to(hidden.device)
        return hidden[torch.arange(len(columns), device=hidden.device)[:, None], columns]


@dataclass(frozen=True)
class Layout:
    """Rows of tokens, padded, and the window of each that is run again.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64.
        starts: (B,) int64, column of each row's start token.
        window: The columns that are run again.
        reuse: Whether keys and values of the tokens outside the window are kept, not run.
    """

    input_ids: Tensor
    attention_mask: Tensor
    starts: Tensor
    window: Window
    reuse: bool = True

    def at_starts(self, tensor: Tensor) -> Tensor:
        """Copy the start tokens of (B, T, features), or (B*T, features) as OPT folds them.

        Returns:
            (B, features).
        """
        rows, length = self.input_ids.shape
        starts = self.starts.to(tensor.device)
        index = torch.arange(rows, device=tensor.device)
        return tensor.reshape(rows, length, -1)[index, starts].clone()


Arrange = Callable[..., Layout]
"""A function from rows, their start tokens, a padding token and the least window to a layout."""


def natural(rows: Rows, starts: Sequence[int], padding: int, least: int = 1) -> Layout:
    """Pad on the right; the window begins at each row's own start.

    Every sum is then made in the order of an ordinary forward pass, and rounds alike. A window
    that would reach beyond the last column begins a little before the start.
    """
    length = max(map(len, rows))
    # Without any padding some models pass no mask, and a window needs one.
    length += all(len(row) == length for row in rows)
    size = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    size = min(max(size, least), length)
    input_ids, mask = _padded(rows, [0] * len(rows), length, padding)
    columns = torch.tensor(list(starts))
    window = Window(columns.clamp(max=length - size), size, length)
    return Layout(input_ids, mask, columns, window)


def aligned(rows: Rows, starts: Sequence[int], padding: int, least: int = 1) -> Layout:
    """Pad on both sides, so that all starts are in one column and windows end the row.

    Serves models that take the last tokens to be the ones that ask (GPT-Neo's local attention).
    ``least`` is ignored: sums are made in another order anyway.
    """
    before = max(starts)
    after = [len(row) - start for row, start in zip(rows, starts, strict=True)]
    size = max(after)
    before += min(starts) == before and min(after) == size  # some padding, as above
    input_ids, mask = _padded(rows, [before - start for start in starts], before + size, padding)
    columns = torch.full((len(rows),), before)
    return Layout(input_ids, mask, columns, Window(columns, size, before + size))


def whole(rows: Rows, starts: Sequence[int], padding: int, least: int = 1) -> Layout:
    """Pad on the right, and run all tokens again."""
    layout = natural(rows, starts, padding)
    length = layout.window.length
    window = Window(torch.zeros(len(rows), dtype=torch.long), length, length)
    return replace(layout, window=window, reuse=False)


def padded_right(rows: Rows) -> Layout:
    """Pad on the right with no column to spare, to run all tokens of rows that do not change."""
    length = max(map(len, rows))
    input_ids, mask = _padded(rows, [0] * len(rows), length, 0)
    none = torch.zeros(len(rows), dtype=torch.long)
    return Layout(input_ids, mask, none, Window(none, length, length), reuse=False)


ARRANGEMENTS: tuple[Arrange, ...] = (natural, aligned, whole)
"""In the order in which they are tried."""


def check_rows(rows: Rows, starts: Sequence[int]) -> None:
    """Refuse rows that cannot be laid out.

    Raises:
        InvalidInput: No rows, or a start outside its row.
    """
    if not rows or len(rows) != len(starts):
        raise InvalidInput(f"{len(rows)} rows with {len(starts)} starts; give at least one of each")
    for row, start in zip(rows, starts, strict=True):
        if not 0 <= start < len(row):
            raise InvalidInput(f"start {start} of a row of {len(row)} tokens; it must lie in it")


def _padded(rows: Rows, shifts: Sequence[int], length: int, padding: int) -> tuple[Tensor, Tensor]:
    input_ids = torch.full((len(rows), length), padding, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for index, (row, shift) in enumerate(zip(rows, shifts, strict=True)):
        input_ids[index, shift : shift + len(row)] = torch.tensor(list(row), dtype=torch.long)
        mask[index, shift : shift + len(row)] = 1
    return input_ids, mask
