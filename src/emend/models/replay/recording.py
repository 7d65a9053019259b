"""One recorded pass of a model: what its blocks were called with, what entered and left them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import NumericalFailure, UnsupportedModel
from emend.models.hooks import Stop, hooked, is_stop, wiped
from emend.models.placing import device_of, quantisation_of
from emend.models.replay.calls import (
    BlockCall,
    CachePlace,
    RecordingCache,
    Refused,
    hidden_of,
)
from emend.models.replay.layout import Layout
from emend.models.view import ModelView

AGREEMENT = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest difference, relative to the largest value, at which a replay counts as the same. (Some
models compute attention in float32 whatever their dtype, hence 1e-4 for float64.)"""

FOREIGN = (
    *(AttributeError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)
"""What a model may raise when it is given a cache or arguments that it does not expect."""

Watch = Callable[[int, Tensor], None]
"""A function of a block's number and the hidden state (B, T, hidden_size) that enters or leaves it.
It is the model's own tensor: copy what is kept."""


@dataclass(frozen=True)
class Recording:
    """What one pass was called with.

    Attributes:
        calls: The call of each recorded block, in order.
        finite: Whether every hidden state that entered a block was finite, at padding too.
    """

    calls: tuple[BlockCall, ...]
    finite: bool


def record_calls(
    view: ModelView,
    layout: Layout,
    *,
    first: int = 0,
    last: int | None = None,
    run_last: bool = True,
    cache: RecordingCache | None = None,
    keep: Callable[[Tensor], Any] | None = None,
    entering: Watch | None = None,
    leaving: Watch | None = None,
) -> Recording:
    """Run a model over a layout up to one block, and record the calls of its blocks.

    Padding is zeroed before every block; see `hooks.wiped`.

    Args:
        view: The model.
        layout: The rows.
        first: The first block to record.
        last: The block after which the pass stops; by default the model's last.
        run_last: Run that block too, in place of stopping before it.
        cache: Passed to the model; it records keys and values from block ``first`` on.
        keep: Converts each tensor among the blocks' arguments (`calls.cut` for instance); by
            default the tensors themselves are kept.
        entering: Called before each recorded block, with its zeroed input.
        leaving: Called after it, with its output.

    Raises:
        Refused: The model fails with the cache.
    """
    last = view.num_layers - 1 if last is None else last
    padding = layout.attention_mask == 0
    calls: list[BlockCall] = []
    finite: list[bool] = []

    def change(leaf: Any) -> Any:
        if cache is not None and leaf is cache:
            return CachePlace()
        return keep(leaf) if keep is not None and isinstance(leaf, Tensor) else leaf

    def before(layer: int) -> Callable[..., Any]:
        def look(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, name = BlockCall.find_hidden(args, kwargs)
            finite.append(bool(hidden.isfinite().all()))
            hidden = wiped(hidden, padding)
            if layer >= first:
                calls.append(BlockCall.read(args, kwargs, change)[1])
                if cache is not None:
                    cache.armed = True
                if entering is not None:
                    entering(layer, hidden)
            if name is None:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, name: hidden}

        return look

    def after(layer: int) -> Callable[..., None]:
        def look(_module: nn.Module, _args: Any, output: Any) -> None:
            if leaving is not None:
                leaving(layer, hidden_of(output))

        return look

    def stop(*_: Any) -> None:
        raise Stop

    with ExitStack() as stack:
        for layer, block in enumerate(view.layers):
            if layer <= last:
                stack.enter_context(hooked(block, before(layer), before=True, with_kwargs=True))
            if first <= layer <= last:
                stack.enter_context(hooked(block, after(layer)))
        stack.enter_context(hooked(view.layers[last], stop, before=not run_last))
        run_layout(view.model, layout, cache)
    return Recording(tuple(calls), all(finite))


def run_layout(model: nn.Module, layout: Layout, cache: RecordingCache | None) -> None:
    """Forward a layout, with right positions in spite of the padding, until a hook stops it.

    Raises:
        Refused: The model fails with the cache.
    """
    device = device_of(model.get_input_embeddings())  # type: ignore[operator]
    mask = layout.attention_mask.to(device)
    inputs: dict[str, Any] = {"input_ids": layout.input_ids.to(device), "attention_mask": mask}
    known = inspect.signature(model.forward).parameters
    if "position_ids" in known:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if cache is not None:
        if "past_key_values" not in known:
            raise Refused
        inputs["past_key_values"] = cache
    try:
        model(**inputs, use_cache=cache is not None)
    except Stop:
        return
    except FOREIGN as error:
        if is_stop(error):
            return
        if cache is None:  # nothing foreign here, so the error is real
            raise
        raise Refused from None


def agreement(view: ModelView, dtype: torch.dtype) -> float:
    """Return `AGREEMENT`, or what 8 bits allow: there rounding depends on all tokens of a batch."""
    found = AGREEMENT[dtype]
    return max(found, 6e-2) if quantisation_of(view.model) == "8-bit" else found


def agrees(view: ModelView, found: Tensor, expected: Tensor) -> bool:
    """Return whether a replay gives what the model's own pass gave, to within `agreement`."""
    difference = (found.to(expected.device) - expected).abs().max()
    return bool(difference <= agreement(view, expected.dtype) * expected.abs().max())


def cannot_replay(view: ModelView) -> UnsupportedModel:
    """Make the error of a model whose blocks, called again, do not give the same again."""
    return UnsupportedModel(
        f"the blocks of {type(view.model).__name__} depend on more than their arguments, so they "
        "cannot be run apart from the model; take another architecture"
    )


def not_finite(view: ModelView) -> NumericalFailure:
    """Make the error of a model whose own pass gives something that is not finite."""
    return NumericalFailure(
        f"the output of the blocks of {type(view.model).__name__} is not finite, expected "
        "numbers: look for weights that are not finite, or load the model in another dtype"
    )


def warn_uncached(view: ModelView, stacklevel: int) -> None:
    """Warn that a model needs all tokens in every replay."""
    warnings.warn(
        f"{type(view.model).__name__} does not take cached keys and values as given: "
        "all tokens are recomputed in every step (exact, but slower)",
        stacklevel=stacklevel + 1,
    )
