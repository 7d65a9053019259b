"""Tell hooks where each prompt ends in the batch that a model is reading.

`score` reads prompts with targets behind them; `generate` reads a prompt, parts of it, or one token
of an answer. A hook that acts on a prompt's last token asks `HookAttachment.batch`, and keeps there
what later passes of the same batch need. Where the model is called directly, each row's last
token that is not padding is taken for the end of its prompt, and a cache that comes back carries
on what was begun with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from emend.models import context
from emend.models.attachments import Attachment
from emend.models.wrapping import unwrapped

BATCH, DIRECT = "batch", "direct"
"""Names under which a context keeps the batch that a model reads: as `reading` gives it, and as an
attachment found it where the model is called directly."""


class Batch:
    """Rows that a model reads together, in one pass or in several.

    Attributes:
        ends: (B,) int64, the column of the last token of each row's prompt.
        start: How many columns earlier passes have read; they are in the cache.
        kept: What a hook keeps from one pass to the next, each under a key of its own.
    """

    def __init__(self, ends: Tensor) -> None:
        self.ends = ends
        self.start = 0
        self.kept: dict[Any, Any] = {}

    def queries(self, length: int) -> tuple[Tensor, Tensor]:
        """Find the prompts' last tokens, by row and column, among the ``length`` of this pass."""
        columns = self.ends - self.start
        rows = ((columns >= 0) & (columns < length)).nonzero()[:, 0]
        return rows, columns[rows]


@contextmanager
def reading(model: nn.Module, batch: Batch) -> Generator[None, None, None]:
    """Have hooks on a model know the batch that it reads inside the block, in this context."""
    model = unwrapped(model)
    before = context.value(BATCH, model)
    context.put(BATCH, model, batch)
    try:
        yield
    finally:
        context.put(BATCH, model, before)


class HookAttachment(Attachment):
    """An attachment whose hooks act where prompts end; see `batch`.

    Attributes:
        needs_whole_prompts: Whether a prompt must be read in one pass, because what its last
            token says changes tokens before it.
    """

    needs_whole_prompts = False

    def __init__(self, patch: Any, model: nn.Module) -> None:
        super().__init__(patch)
        self.model = model
        self._caches: WeakKeyDictionary[Any, Batch] = WeakKeyDictionary()

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        # PEFT's wrappers run what they wrap without its hooks, but generate through it.
        for each in dict.fromkeys((model, unwrapped(model))):
            yield each.register_forward_pre_hook(self._begin, with_kwargs=True)
            yield each.register_forward_hook(self._end, always_call=True)

    @property
    def batch(self) -> Batch | None:
        """Return what is read now; None while not acting, or where blocks run without the model."""
        if not self.active:
            return None
        return context.value(BATCH, unwrapped(self.model)) or context.value(DIRECT, self)

    # A hook that another thread removes during a pass may still be called, without its kwargs.
    def _begin(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> None:
        if kwargs is None or not self.active:
            return
        given = kwargs.get("input_ids", args[0] if args else None)
        given = kwargs.get("inputs_embeds") if given is None else given
        if given is None:
            return
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        known = self._caches.get(cache) if start else None
        batch = known or Batch(_last(kwargs.get("attention_mask"), given, start))
        batch.start = start
        context.put(DIRECT, self, batch)

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        batch = context.value(DIRECT, self)
        if batch is None:
            return
        cache = getattr(output, "past_key_values", None)
        if cache is not None:
            self._caches[cache] = batch
        context.put(DIRECT, self, None)


class TextAttachment(Attachment):
    """An attachment that acts on prompts and not inside the model.

    Calling the model itself passes it by; that is stated once.
    """

    def __init__(self, patch: Any, model: nn.Module) -> None:
        super().__init__(patch)
        self.model = model
        self._told = False

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        for each in dict.fromkeys((model, unwrapped(model))):
            yield each.register_forward_pre_hook(self._tell)

    def _tell(self, _module: nn.Module, _args: Any) -> None:
        read = context.value(BATCH, unwrapped(self.model))
        if self.active and not self._told and read is None:
            self._told = True
            warnings.warn(
                f"the {self.patch.method} patch acts on prompts, and a model that is called "
                "directly reads none: ask through emend.models.score or generate",
                stacklevel=6,
            )


def _last(mask: Any, given: Tensor, start: int) -> Tensor:
    """Find the column (B,) of each row's last token that is not padding."""
    rows, length = given.shape[:2]
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return torch.full((rows,), start + length - 1)
    return (mask.shape[1] - 1 - mask.bool().flip(1).int().argmax(1)).cpu()
