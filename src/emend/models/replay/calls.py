"""Record the arguments of a model's blocks, and call them again for fewer tokens and rows.

Nothing here knows an architecture: which axis of an argument counts rows, and which counts the
tokens that ask (queries), is read off its shape. Keys are never cut: masks and ALiBi biases keep
their last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from emend.models.replay.layout import Window

KeysValues: TypeAlias = Mapping[int, tuple[Tensor, Tensor]]
"""By the model's own number of a layer: keys and values, (rows, heads, tokens, features) each."""


class Refused(Exception):
    """The model cannot be run again in the layout that was tried."""


@dataclass(frozen=True)
class Slot:
    """One tensor among a block's arguments.

    Attributes:
        value: The tensor, cut to the tokens that are run.
        per_row: Entries of the first axis for each row of the batch (heads, where rows and heads
            are folded together); 0 where all rows share the tensor.
    """

    value: Tensor
    per_row: int

    def select(self, rows: Tensor) -> Slot:
        """Return the same argument for some of the rows only."""
        if self.per_row == 0:
            return self
        index = rows.to(self.value.device)
        if self.per_row > 1:
            each = torch.arange(self.per_row, device=index.device)
            index = (index[:, None] * self.per_row + each).flatten()
        return Slot(self.value[index], self.per_row)


def shared(tensor: Tensor) -> Slot:
    """Keep an argument as it is, for calls that run all tokens of all rows."""
    return Slot(tensor, 0)


class CachePlace:
    """Marks the place of the key/value cache among the arguments."""


def each_leaf(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to everything in nested tuples, lists and mappings."""
    if type(tree) in (tuple, list):
        return type(tree)(each_leaf(item, change) for item in tree)
    if isinstance(tree, Mapping):
        items = cast("Mapping[Any, Any]", tree).items()
        return {name: each_leaf(item, change) for name, item in items}
    return change(tree)


def cut(tensor: Tensor, window: Window) -> Slot:
    """Find the axes of one argument by its shape, and keep the queries of the window only.

    Raises:
        Refused: The rows share an argument, and each needs another part of it.
    """
    if tensor.dtype == torch.float64:
        # Masks with the least float64 become -inf where a model takes its softmax in float32; a
        # row of nothing but -inf gives NaN, whose gradient spreads.
        tensor = tensor.clamp(min=torch.finfo(torch.float32).min)
    rows = len(window.first)
    axis = _query_axis(tensor, rows, window.length)
    batched = tensor.ndim > 2 or (tensor.ndim == 2 and axis != 0)
    per_row = tensor.shape[0] // rows if batched and tensor.shape[0] % rows == 0 else 0
    if axis is None:
        return Slot(tensor, per_row)
    common = window.common
    if common is not None:
        return Slot(tensor.narrow(axis, common, window.size), per_row)
    if axis == 0:
        raise Refused
    if per_row == 0:  # (1, ..., T, ...): each row now needs a part of its own
        tensor, per_row = tensor.expand(rows, *tensor.shape[1:]), 1
    columns = window.columns.to(tensor.device).repeat_interleave(per_row, 0)
    moved = tensor.movedim(axis, 1)  # (B, T, ...)
    index = torch.arange(len(moved), device=tensor.device)[:, None]
    return Slot(moved[index, columns].movedim(1, axis).contiguous(), per_row)


def _query_axis(tensor: Tensor, rows: int, length: int) -> int | None:
    shape = tensor.shape
    if tensor.ndim == 4 and shape[2] == length:
        return 2  # (B, heads, queries, keys), (B, 1, T, features)
    if tensor.ndim == 3 and shape[1] == length:
        return 1  # (B, T, features), (B, queries, keys)
    if tensor.ndim == 2 and shape[1] == length and shape[0] in (1, rows):
        # A mask of the keys, as flash attention takes it, holds zeros and ones only.
        is_mask = tensor.dtype == torch.bool or bool(((tensor == 0) | (tensor == 1)).all())
        return None if is_mask else 1  # (B, T)
    if tensor.ndim in (1, 2) and shape[0] == length:
        return 0  # (T,), (T, features)
    return None


class RecordingCache(DynamicCache):
    """Passes keys and values through, and keeps those of the layers that run while ``armed``."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what is given, and remember it."""
        if self.armed:
            self.seen[layer_idx] = (key_states, value_states)
        return key_states, value_states

    def checked(self, window: Window) -> KeysValues:
        """Return what was recorded.

        Raises:
            Refused: There is nothing, or it is not (B, heads, T, features).
        """
        usual = (4, len(window.first), window.length)
        tensors = [tensor for pair in self.seen.values() for tensor in pair]
        if not tensors or any((t.ndim, t.shape[0], *t.shape[2:3]) != usual for t in tensors):
            raise Refused
        return self.seen


class PrefixCache(DynamicCache):
    """Puts new keys and values among those of the other tokens, and never stores them.

    Args:
        kept: For each layer index the keys and values of all tokens, (B, heads, T, features).
        window: The tokens whose keys and values will be given.
    """

    def __init__(self, kept: KeysValues, window: Window) -> None:
        super().__init__()
        self.kept, self.window = dict(kept), window
        common = window.common
        at_end = common is not None and common + window.size == window.length
        self.before = common if at_end else None
        self.columns = window.columns[:, None, :, None]  # (B, 1, S, 1)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of all tokens, (B, heads, T, features)."""
        keys, values = self.kept[layer_idx]
        return self._joined(keys, key_states), self._joined(values, value_states)

    def _joined(self, kept: Tensor, given: Tensor) -> Tensor:
        if self.before is not None:
            return torch.cat([kept[:, :, : self.before], given], dim=2)
        return kept.scatter(2, self.columns.to(given.device).expand_as(given), given)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens before the window."""
        return int(self.window.first.max())

    def select(self, rows: Tensor) -> PrefixCache:
        """Return the same for some of the rows only."""
        chosen = {
            layer: (keys[rows.to(keys.device)], values[rows.to(values.device)])
            for layer, (keys, values) in self.kept.items()
        }
        return PrefixCache(chosen, self.window.select(rows))


@dataclass(frozen=True)
class BlockCall:
    """The arguments of one block, the hidden state left out.

    Attributes:
        args: Positional arguments after the hidden state, as a tree of slots.
        kwargs: Named arguments, as a tree of slots.
        hidden_name: The name under which the hidden state is passed; None for by position.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hidden_name: str | None

    @staticmethod
    def read(
        args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[Any], Any]
    ) -> tuple[Tensor, BlockCall]:
        """Split what a block was called with into its hidden state and the rest."""
        hidden, name = BlockCall.find_hidden(args, kwargs)
        others = {key: value for key, value in kwargs.items() if key != name}
        return hidden, BlockCall(each_leaf(args[1:], change), each_leaf(others, change), name)

    @staticmethod
    def find_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, str | None]:
        """Find the hidden state among a block's arguments, and its name (None: first of `args`)."""
        if args:
            return args[0], None
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        return kwargs[name], name

    def select(self, rows: Tensor) -> BlockCall:
        """Return the same call for some of the rows only."""

        def choose(leaf: Any) -> Any:
            return leaf.select(rows) if isinstance(leaf, Slot) else leaf

        return BlockCall(
            each_leaf(self.args, choose), each_leaf(self.kwargs, choose), self.hidden_name
        )

    def run(self, block: Any, hidden: Tensor, cache: DynamicCache | None) -> Tensor:
        """Call the block again and return its hidden state."""

        def fill(leaf: Any) -> Any:
            if isinstance(leaf, Slot):
                return leaf.value
            return cache if isinstance(leaf, CachePlace) else leaf

        args, kwargs = each_leaf(self.args, fill), each_leaf(self.kwargs, fill)
        if self.hidden_name is None:
            return hidden_of(block(hidden, *args, **kwargs))
        return hidden_of(block(**{self.hidden_name: hidden}, **kwargs))


def hidden_of(output: Any) -> Tensor:
    """Return the hidden state that a block returned: a tensor, or the first of a tuple."""
    return output if isinstance(output, Tensor) else output[0]
