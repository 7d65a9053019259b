"""One recorded pass of a model: what its blocks were called with, what entered and left them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import NumericalFailure, UnsupportedModel
from emend.models.hooks import Stop, hooked, is_stop, stopping, wiped
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


@dataclass
class Recorder:
    """Records the calls of a model's blocks in one pass over a layout.

    Padding is zeroed before every block; see `hooks.wiped`.

    Attributes:
        view: The model.
        layout: The rows.
        first: The first block to record.
        cache: Passed to the model; it records keys and values from block ``first`` on.
        keep: Converts each tensor among the blocks' arguments (`calls.cut` for instance); by
            default the tensors themselves are kept.
        entering: Called before each recorded block, with its zeroed input.
        leaving: Called after it, with its output.
    """

    view: ModelView
    layout: Layout
    first: int = 0
    cache: RecordingCache | None = None
    keep: Callable[[Tensor], Any] | None = None
    entering: Watch | None = None
    leaving: Watch | None = None
    _calls: list[BlockCall] = field(default_factory=list[BlockCall], init=False)
    _finite: list[bool] = field(default_factory=list[bool], init=False)

    def run(self, last: int | None = None, *, run_last: bool = True) -> Recording:
        """Run the model up to one block.

        Args:
            last: The block after which the pass stops; by default the model's last.
            run_last: Run that block too, in place of stopping before it.

        Raises:
            Refused: The model fails with the cache.
        """
        view, last = self.view, self.view.num_layers - 1 if last is None else last
        with ExitStack() as stack:
            for layer, block in enumerate(view.layers):
                if layer <= last:
                    look = partial(self._before, layer)
                    stack.enter_context(hooked(block, look, before=True, with_kwargs=True))
                if self.leaving is not None and self.first <= layer <= last:
                    stack.enter_context(hooked(block, partial(self._after, layer)))
            stack.enter_context(stopping(view.layers[last], before=not run_last))
            run_layout(view.model, self.layout, self.cache)
        return Recording(tuple(self._calls), all(self._finite))

    def _before(
        self, layer: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        hidden, name = BlockCall.find_hidden(args, kwargs)
        self._finite.append(bool(hidden.isfinite().all()))
        hidden = wiped(hidden, self.layout.attention_mask == 0)
        if layer >= self.first:
            self._calls.append(BlockCall.read(args, kwargs, self._kept)[1])
            if self.cache is not None:
                self.cache.armed = True
            if self.entering is not None:
                self.entering(layer, hidden)
        return ((hidden, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: hidden})

    def _after(self, layer: int, _module: nn.Module, _args: Any, output: Any) -> None:
        if self.leaving is not None:
            self.leaving(layer, hidden_of(output))

    def _kept(self, leaf: Any) -> Any:
        if self.cache is not None and leaf is self.cache:
            return CachePlace()
        return self.keep(leaf) if self.keep is not None and isinstance(leaf, Tensor) else leaf


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
