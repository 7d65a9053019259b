"""What a call of a model sees: the attachments that act in it, by context.

A context is a thread, or an asyncio task: each has a table of its own, and a task starts with a
copy of the one that created it. What one context sets no other one sees, so that two threads may
ask one model at the same time, each with another patch. Values are kept by a name and the object
that they belong to.

Gradient checkpointing runs a layer twice: in the forward pass, and again in the backward pass,
which may run after the patch's block was left and, on a GPU, in one of autograd's threads.
transformers runs layers through the function that `gradient_checkpointing_enable` set on them;
that function is wrapped here, so that the second run has the context of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Table = Mapping[tuple[str, Any], Any]

_TABLE: ContextVar[Table] = ContextVar("emend_call", default={})  # noqa: B039 (never mutated)


def table() -> Table:
    """Return everything that the current context has set."""
    return _TABLE.get()


def value(name: str, owner: Any) -> Any:
    """Return what the current context has set under ``name`` for ``owner``, or None."""
    return _TABLE.get().get((name, owner))


def put(name: str, owner: Any, new: Any) -> None:
    """Set a value in the current context; None takes it out."""
    kept = {key: one for key, one in _TABLE.get().items() if key != (name, owner)}
    _TABLE.set(kept if new is None else {**kept, (name, owner): new})


@contextmanager
def within(whole: Table) -> Generator[None, None, None]:
    """Set the whole table inside the block: a later call is then made as an earlier one was."""
    before = _TABLE.get()
    _TABLE.set(whole)
    try:
        yield
    finally:
        _TABLE.set(before)


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
    return value(BLOCKS, model) or ()


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
    put(BLOCKS, model, (*blocks_of(model), block))
    try:
        yield
    finally:
        # This block alone: others may be left in another order than they were entered in.
        put(BLOCKS, model, tuple(one for one in blocks_of(model) if one is not block) or None)


def frozen_call(model: nn.Module) -> Table:
    """Return all that the current context has set, with what acts on the model fixed as it is."""
    fixed = (Block(None, acts=False), *(Block(one, acts=True) for one in acting_on(model)))
    return {**table(), (BLOCKS, model): fixed}


FUNCTION = "_gradient_checkpointing_func"
"""Where transformers keeps the function on each module that it checkpoints."""


class _Remembering:
    """Runs a checkpointed function with what the context had set when it was given.

    Args:
        checkpoint: The function that transformers set.
        host: The model.
    """

    def __init__(self, checkpoint: Callable[..., Any], host: nn.Module) -> None:
        self.checkpoint, self.host = checkpoint, host

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call, those = frozen_call(self.host), acting_on(self.host)

        def run(*inputs: Any, **named: Any) -> Any:
            with ExitStack() as stack:
                for one in those:  # their blocks may have been left
                    one.install(self.host)
                    stack.callback(one.remove)
                stack.enter_context(within(call))
                return function(*inputs, **named)

        return self.checkpoint(run, *args, **kwargs)


def remember_recomputation(model: nn.Module, host: nn.Module) -> Iterator[Any]:
    """Register the hooks that see to it, on a model and on the one inside its wrappers.

    Checkpointing may be switched on at any time, so that each pass looks anew.
    """

    def look(_module: nn.Module, _args: Any) -> None:
        if host.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for module in host.modules():
                found = vars(module).get(FUNCTION)
                if found is not None and not isinstance(found, _Remembering):
                    setattr(module, FUNCTION, _Remembering(found, host))

    for each in dict.fromkeys((model, host)):
        yield each.register_forward_pre_hook(look)
