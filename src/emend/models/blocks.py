"""The ``with`` blocks that a context is in, and what acts on a model by them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from emend.models import call as _call

ATTRIBUTE = "_emend_attachments"
BLOCKS = "blocks"


@dataclass(frozen=True, eq=False)
class Block:
    """A block that a context is in.

    Attributes:
        attachment: The one that it is about; None is `attachments.base`.
        acts: Whether the attachment acts inside, or is left out.
    """

    attachment: Any
    acts: bool


def blocks_of(model: nn.Module) -> tuple[Block, ...]:
    """Return the blocks of the current context for a model, the outermost first."""
    return _call.value(BLOCKS, model) or ()


def kept_for_everyone(model: nn.Module) -> tuple[Any, ...]:
    """Return what is attached for all contexts that are not inside `base`, in order."""
    return tuple(getattr(model, ATTRIBUTE, ()))


def keep_for_everyone(model: nn.Module, kept: tuple[Any, ...]) -> None:
    """Replace what is attached for everyone; the model's state dict does not show it."""
    if kept:
        object.__setattr__(model, ATTRIBUTE, kept)
    elif hasattr(model, ATTRIBUTE):
        object.__delattr__(model, ATTRIBUTE)


def acting_on(model: nn.Module) -> tuple[Any, ...]:
    """Return what acts in the current context: first what does for everyone, in order."""
    found = list(kept_for_everyone(model))
    for block in blocks_of(model):
        if block.attachment is None:
            found.clear()
        elif block.acts:
            found.append(block.attachment)
        elif block.attachment in found:
            found.remove(block.attachment)
    return tuple(found)


def acts(model: nn.Module, attachment: Any) -> bool:
    """Return whether an attachment is among `acting_on`; asked by every hook in every pass."""
    for block in reversed(blocks_of(model)):
        if block.attachment is attachment:
            return block.acts
        if block.attachment is None:
            return False
    return attachment in kept_for_everyone(model)


@contextmanager
def inside(model: nn.Module, block: Block) -> Generator[None, None, None]:
    """Have the current context in one more block."""
    _call.put(BLOCKS, model, (*blocks_of(model), block))
    try:
        yield
    finally:
        # This block alone: others may be left in another order than they were entered in.
        _call.put(BLOCKS, model, tuple(one for one in blocks_of(model) if one is not block) or None)


def frozen_call(model: nn.Module) -> _call.Table:
    """Return all that the current context has set, with what acts on the model fixed as it is."""
    fixed = (Block(None, acts=False), *(Block(one, acts=True) for one in acting_on(model)))
    return {**_call.table(), (BLOCKS, model): fixed}
