"""The partial forward: only the blocks and the tokens that a change can reach, exactly.

A change of a down-projection's output at one token leaves everything below that block and
everything before that token as it was. So one pass over the whole model captures the input of
the block, the arguments that the model itself gave each block from there on, and the keys and
values of the tokens before; after that only the tokens from the changed one on are run, through
the blocks from the changed one up.

Rows of different lengths are aligned at the changed token: padding on the left fills up what
comes before it, padding on the right what comes after, so that every argument is cut at one
column, and distances between tokens (local attention, ALiBi) stay what they were.

No architecture is known by name. Each capture is checked against the pass it came from; where a
model does not take the keys and values of earlier tokens as we give them, all tokens are run from
the block up instead (still exact, slower), and a warning says so.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput, UnsupportedModel
from emend.models._forward import evaluating
from emend.models._replay import (
    BlockCall,
    CachePlace,
    PrefixCache,
    RecordingCache,
    Slot,
    cut,
    hidden_of,
)
from emend.models.view import ModelView

AGREEMENT = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest difference, relative to the largest value, at which a replay counts as the same. (Some
models compute attention in float32 whatever their dtype, hence 1e-4 for float64.)"""


class _Stop(Exception):  # noqa: N818 - not an error: it ends a forward pass that went far enough
    """Raised by a hook when what was wanted has been seen."""


@dataclass(frozen=True)
class Aligned:
    """Rows of tokens padded so that their ``start`` tokens stand in one column.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64.
        column: The column of the start tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    column: int

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, tokens of each row from its start on."""
        return self.attention_mask[:, self.column :].sum(1)


def align(rows: Sequence[Sequence[int]], starts: Sequence[int], padding: int = 0) -> Aligned:
    """Pad rows on both sides so that token ``starts[i]`` of row i stands in one column for all.

    At least one column of padding is left in the batch, or else some models pass no mask, and
    the number of columns is no multiple of the number of rows, so that axes can be told apart.

    Raises:
        InvalidInput: No rows, or a start outside its row.
    """
    if not rows or len(rows) != len(starts):
        raise InvalidInput(f"{len(rows)} rows with {len(starts)} starts; give at least one of each")
    for row, start in zip(rows, starts, strict=True):
        if not 0 <= start < len(row):
            raise InvalidInput(f"start {start} of a row of {len(row)} tokens; it must lie in it")
    before = max(starts)
    after = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    full = all(s == before and len(r) - s == after for r, s in zip(rows, starts, strict=True))
    before += int(full)
    while len(rows) > 1 and (before + after) % len(rows) == 0:
        before += 1
    input_ids = torch.full((len(rows), before + after), padding, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
        place = slice(before - start, before - start + len(row))
        input_ids[index, place] = torch.tensor(list(row), dtype=torch.long)
        mask[index, place] = 1
    return Aligned(input_ids, mask, before)


@dataclass(frozen=True)
class BlockCapture:
    """Everything needed to run a model again from one block up and from one token on.

    Attributes:
        view: The model.
        layer: The block whose down-projection is to change.
        keys: (B, inner), input of that down-projection at the start tokens.
        values: (B, width), its output there.
        lengths: (B,) int64, tokens of each row from its start on; what ``run`` returns beyond
            them is padding.
        reuses_prefix: Whether the tokens before the start are left out of each run.
        is_additive: Whether what is added to the down-projection's output is added to the
            block's output unchanged, so that the block itself need not run again.
    """

    view: ModelView
    layer: int
    keys: Tensor
    values: Tensor
    lengths: Tensor
    reuses_prefix: bool
    is_additive: bool = False
    _before: Tensor = field(repr=False, kw_only=True)  # (B, S, width), input of block `layer`
    _after: Tensor = field(repr=False, kw_only=True)  # (B, S, width), its output
    _calls: tuple[BlockCall, ...] = field(repr=False, kw_only=True)  # from block `layer` up
    _cache: PrefixCache | None = field(repr=False, kw_only=True)
    _column: int = field(kw_only=True)  # the start tokens' column among the tokens run
    _padding: Tensor | None = field(repr=False, kw_only=True)  # (B, S) bool, where it must be wiped

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._before.shape[0])

    def run(self, delta: Tensor | None = None) -> Tensor:
        """Output of the last block where ``delta`` is added to the down-projection's output.

        Args:
            delta: (B, width), what is added at each row's start token; None adds nothing.

        Returns:
            (B, S, width): for each row the tokens from its start on, then padding.
        """
        if delta is None or self.is_additive:
            hidden = self._after if delta is None else _add_at(self._after, delta, self._column)
            return self.run_blocks(hidden, self.layer + 1)[:, self._column :]
        with adding(self.view.down_projection(self.layer), delta, self.rows, self._column):
            return self.run_blocks(self._before, self.layer)[:, self._column :]

    def run_blocks(self, hidden: Tensor | None = None, first: int | None = None) -> Tensor:
        """Run block ``first`` (by default the captured one) and all above it.

        Args:
            hidden: (B, S, width), the block's input; by default what it was.
            first: Number of the first block to run, at least the captured one.

        Returns:
            (B, S, width), output of the last block.
        """
        hidden = self._before if hidden is None else hidden
        first = self.layer if first is None else first
        for index in range(first, self.view.depth):
            call = self._calls[index - self.layer]
            hidden = _wiped(hidden, self._padding)
            hidden = call.run(self.view.blocks[index], hidden, self._cache)
        return hidden

    def select(self, rows: Sequence[int]) -> BlockCapture:
        """The same capture for some of the rows only."""
        index = torch.tensor(list(rows), dtype=torch.long)

        def choose(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device)]

        return replace(
            self,
            keys=choose(self.keys),
            values=choose(self.values),
            lengths=choose(self.lengths),
            _before=choose(self._before),
            _after=choose(self._after),
            _calls=tuple(call.select(index) for call in self._calls),
            _cache=None if self._cache is None else self._cache.select(index),
            _padding=None if self._padding is None else choose(self._padding),
        )


def capture_blocks(
    view: ModelView,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    layer: int,
    padding: int = 0,
) -> BlockCapture:
    """Run the model once over ``rows`` and keep what the blocks from ``layer`` up need.

    Args:
        view: The model.
        rows: Token ids of each row, unpadded.
        starts: For each row the token from which on it may change.
        layer: The block whose down-projection is to change.
        padding: A token id to pad with; which one does not matter.

    Raises:
        InvalidInput: No rows, or a start outside its row.
        UnsupportedModel: The model's blocks, called again with what they were given, do not give
            the same again.
    """
    layer = layer % view.depth
    aligned = align(rows, starts, padding)
    with evaluating(view.model), torch.no_grad():
        for reuse in (True, False):
            try:
                capture, last = _capture(view, aligned, layer, reuse)
                agrees = _agrees(capture, last)
            except _Refused:
                continue
            if agrees:
                break
        else:
            raise UnsupportedModel(
                f"the blocks of {type(view.model).__name__} depend on more than their arguments, "
                "so they cannot be run apart from the model; take another architecture"
            )
    if not capture.reuses_prefix:
        warnings.warn(
            f"{type(view.model).__name__} does not take cached keys and values as given; all "
            "tokens are recomputed in every step (exact, but slower)",
            stacklevel=2,
        )
    return replace(capture, is_additive=_is_additive(capture))


class _Refused(Exception):  # noqa: N818 - a signal between two functions of this file
    """The model cannot be run with the cache that records."""


def _capture(
    view: ModelView, aligned: Aligned, layer: int, reuse: bool
) -> tuple[BlockCapture, Tensor]:
    """One recorded pass; also gives the last block's output from the start column on."""
    count, length = aligned.input_ids.shape
    column = aligned.column
    first = column if reuse else 0
    cache = RecordingCache()
    padding = aligned.attention_mask == 0
    kept: dict[str, Any] = {"calls": [], "finite": True}

    def change(leaf: Any) -> Any:
        if leaf is cache:
            return CachePlace()
        return cut(leaf, count, length, first) if isinstance(leaf, Tensor) else leaf

    def wipe(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, name = BlockCall.find_hidden(args, kwargs)
        kept["finite"] = kept["finite"] and bool(hidden.isfinite().all())
        hidden = _wiped(hidden, padding)
        return ((hidden, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: hidden})

    def before_block(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, call = BlockCall.read(args, kwargs, change)
        if not kept["calls"]:
            kept["before"] = hidden[:, first:].clone()
            cache.armed = True
        kept["calls"].append(call)

    def at_site(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        # OPT folds rows and tokens together before its projections.
        kept["keys"] = args[0].reshape(count, length, -1)[:, column].clone()
        kept["values"] = output.reshape(count, length, -1)[:, column].clone()

    def after_block(_module: nn.Module, _args: Any, output: Any) -> None:
        kept["after"] = hidden_of(output)[:, first:].clone()

    def after_last(_module: nn.Module, _args: Any, output: Any) -> None:
        kept["last"] = hidden_of(output)[:, column:].clone()
        raise _Stop

    with ExitStack() as stack:
        for block in view.blocks:
            handle = block.register_forward_pre_hook(wipe, with_kwargs=True)
            stack.callback(handle.remove)
        for block in view.blocks[layer:]:
            handle = block.register_forward_pre_hook(before_block, with_kwargs=True)
            stack.callback(handle.remove)
        for module, hook in (
            (view.down_projection(layer), at_site),
            (view.block(layer), after_block),
            (view.blocks[-1], after_last),
        ):
            stack.callback(module.register_forward_hook(hook).remove)
        run_model(view.model, aligned, cache if reuse else None)
    capture = BlockCapture(
        view=view,
        layer=layer,
        keys=kept["keys"],
        values=kept["values"],
        lengths=aligned.lengths,
        reuses_prefix=reuse,
        _before=kept["before"],
        _after=kept["after"],
        _calls=tuple(kept["calls"]),
        _cache=_prefix(cache, count, length, column) if reuse else None,
        _column=column - first,
        _padding=None if kept["finite"] else padding[:, first:],
    )
    return capture, kept["last"]


def run_model(model: nn.Module, aligned: Aligned, cache: RecordingCache | None) -> None:
    """Forward aligned rows, with right positions in spite of the padding, until a hook stops it.

    Raises:
        _Refused: The model fails with the cache.
    """
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    device = embeddings.weight.device
    mask = aligned.attention_mask.to(device)
    inputs: dict[str, Any] = {"input_ids": aligned.input_ids.to(device), "attention_mask": mask}
    known = inspect.signature(model.forward).parameters
    if "position_ids" in known:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if cache is not None and "past_key_values" not in known:
        raise _Refused
    if cache is not None:
        inputs["past_key_values"] = cache
    try:
        model(**inputs, use_cache=cache is not None)
    except _Stop:
        return
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError):
        # What a model does with a foreign cache cannot be foreseen; without one, errors are real.
        if cache is None:
            raise
        raise _Refused from None


def _prefix(cache: RecordingCache, rows: int, length: int, column: int) -> PrefixCache:
    for keys, values in cache.seen.values():
        for tensor in (keys, values):
            if tensor.ndim != 4 or tensor.shape[0] != rows or tensor.shape[2] != length:
                raise _Refused
    prefix = {
        layer: (keys[:, :, :column].clone(), values[:, :, :column].clone())
        for layer, (keys, values) in cache.seen.items()
    }
    if not prefix:
        raise _Refused
    return PrefixCache(prefix)


def _sample(capture: BlockCapture) -> list[int]:
    """A few rows that stand for all: the first, and those with most and fewest tokens."""
    order = capture.lengths.argsort().tolist()
    return sorted({0, order[0], order[-1]})


def _agrees(capture: BlockCapture, last: Tensor) -> bool:
    """Whether a replay of a few rows gives what the captured pass gave."""
    rows = _sample(capture)
    some = capture.select(rows)
    try:
        found = some.run_blocks()[:, some._column :]
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError):
        if not capture.reuses_prefix:
            raise
        return False
    expected = last[torch.tensor(rows, device=last.device)]
    width = torch.arange(expected.shape[1])
    real = (width < some.lengths[:, None]).to(expected.device)  # (B, S)
    difference = (found.to(expected.device) - expected)[real].abs().max()
    return bool(difference <= AGREEMENT[expected.dtype] * expected[real].abs().max())


def _is_additive(capture: BlockCapture) -> bool:
    """Whether the gradient at the block's output reaches the down-projection's output unchanged.

    Adding is the one thing whose gradient is the identity to the last bit; a norm after the MLP
    (Gemma 2, OLMo 2) or a factor on the residual (Granite) shows.
    """
    some = capture.select(_sample(capture))
    delta = torch.zeros_like(some.values, requires_grad=True)
    site = some.view.down_projection(some.layer)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(some._before.shape, generator=generator).to(some._before)
    with torch.enable_grad(), evaluating(some.view.model), frozen(some.view.model):
        with adding(site, delta, some.rows, some._column):
            block = some.view.block(some.layer)
            output = some._calls[0].run(block, some._before, some._cache)
        (gradient,) = torch.autograd.grad((output * weights).sum(), delta)
    return torch.equal(gradient, weights[:, some._column])


def _wiped(hidden: Tensor, padding: Tensor | None) -> Tensor:
    """Zeros at padding. Softmax over nothing gives NaN in some models, and 0 * NaN spreads."""
    if padding is None:
        return hidden
    return hidden.masked_fill(padding[..., None].to(hidden.device), 0.0)


def _add_at(hidden: Tensor, delta: Tensor, column: int) -> Tensor:
    """(B, S, width) with (B, width) added at one column."""
    changed = hidden[:, column] + delta.to(device=hidden.device, dtype=hidden.dtype)
    parts = [hidden[:, :column], changed[:, None], hidden[:, column + 1 :]]
    return torch.cat(parts, dim=1)


@contextmanager
def adding(module: nn.Module, delta: Tensor, rows: int, column: int) -> Generator[None, None, None]:
    """Add ``delta`` (B, width) to a module's output at one token of every row."""

    def add(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        apart = output.reshape(rows, -1, output.shape[-1])
        return _add_at(apart, delta, column).reshape(output.shape)

    with hooked(module, add):
        yield


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Generator[None, None, None]:
    """Keep a forward hook on ``module`` inside the block."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def frozen(model: nn.Module) -> Generator[None, None, None]:
    """No parameter asks for a gradient inside the block; the flags come back as they were."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
