"""One narrow door for every kind of patch.

Weights, hooks, prompts and routes all hang on the model they patch through here, so that `score`
and `generate` see a patched model the same way whatever patched it. Which attachments act in a
forward pass is decided by the call that makes it, never by the model alone:

    attach(model, one)       for everyone, until `detach`; kept in a list on the model
    acting(model, one)       inside a block, for the context that entered it
    base(model)              inside a block, for the context that entered it: nothing acts
    one.suspended()          inside a block, for the context that entered it: all others act

A context is a thread or an asyncio task (`contextvars`). Of several blocks the innermost decides:
a patch that is applied inside `base` acts, and `base` inside `applied` hides it. A task, and
`asyncio.to_thread`, start inside the blocks of whoever started them; a new thread, or a pool's,
starts outside of all blocks: it gets what is attached for everyone, and a warning where another
context has a patch of its own at that time.

What an attachment may do, next to the hooks that it registers:

    prepare     give what the model must read instead of a prompt       (a prompt patch)
    route       give who must answer a prompt, and with what weight     (a routed patch)
    passes.py   hooks learn there where each row's prompt ends          (a hook patch)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import RLock
from typing import Any

from torch import nn

from emend.errors import InvalidInput
from emend.models.context import (
    Block,
    acting_on,
    acts,
    blocks_of,
    inside,
    keep_for_everyone,
    kept_for_everyone,
    remember_recomputation,
)
from emend.models.wrapping import unwrapped

_LOCK = RLock()
"""Hooks and lists of attachments change under it; passes do not take it."""


@dataclass(frozen=True, eq=False)
class MixtureComponent:
    """One component of a mixture: a model, the prompt that it reads, and its weight.

    Attributes:
        model: A causal language model with the vocabulary of the one that was asked.
        prompt: What it reads.
        weight: Its share of the answer's probabilities; those of a prompt's components sum to 1.
            A negative weight means contrastive decoding: the logarithms of the probabilities are
            mixed in place of the probabilities.
        acting: A context that the model is run in; components of one model that are run alike
            share one function.
    """

    model: nn.Module
    prompt: str
    weight: float = 1.0
    acting: Callable[[], AbstractContextManager[Any]] = nullcontext


class Attachment:
    """What a patch hangs on a model; this one changes nothing.

    Attributes:
        patch: The patch that it belongs to.
        handles: Of the hooks that it has on the model now.
        contrast: How much of what the model would say to a prompt as it was is taken off what it
            says to what `prepare` made of it: alpha of context-aware decoding (Shi et al. 2023,
            arXiv 2305.14739), p ~ p(y | prepared)^(1 + alpha) / p(y | prompt)^alpha.
    """

    def __init__(self, patch: Any) -> None:
        self.patch = patch
        self.contrast = 0.0
        self.handles: list[Any] = []
        self._host: nn.Module | None = None
        self._users = 0
        self._warned = False

    @property
    def active(self) -> bool:
        """Return whether the patch acts in the current context."""
        if self._host is None:
            return False
        found = acts(self._host, self)
        if not found and not self._warned and self._users and not blocks_of(self._host):
            self._warned = True
            warnings.warn(
                "a thread outside of every patch's block asks a model that another thread has a "
                "patch applied to, and gets the model without it: enter patch.applied(model) in "
                "this thread too, attach the patch for everyone (patch.attach(model)), or enter "
                "emend.models.base(model) where the unedited model is meant",
                stacklevel=5,
            )
        return found

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Register the hooks that the patch acts by, one after another, and give their handles.

        Where this fails half way, those that were given are removed again. Every hook must do
        nothing while the attachment is not `active`.

        Args:
            model: The model that it is attached to.
        """
        del model
        return iter(())

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """Return the prompts as the model should read them.

        Args:
            prompts: Different prompts.
            tokenizer: The model's.
        """
        del tokenizer
        return list(prompts)

    def route(
        self, prompts: Sequence[str], tokenizer: Any
    ) -> list[tuple[MixtureComponent, ...] | None]:
        """Return the components that answer each prompt; None where the model answers alone.

        Args:
            prompts: Different prompts, prepared.
            tokenizer: The model's.
        """
        del tokenizer
        return [None] * len(prompts)

    def samples(self) -> list[dict[str, Any]]:
        """Return what the patch noted of how it answered prompts, one JSON-able object for each."""
        return []

    @contextmanager
    def suspended(self) -> Generator[None, None, None]:
        """Leave the patch out in this context inside the block; all others act."""
        if self._host is None:
            yield
            return
        with inside(self._host, Block(self, acts=False)):
            yield

    def install(self, model: nn.Module) -> None:
        """Put the hooks on the model, all of them or none; each `install` needs a `remove`."""
        with _LOCK:
            if not self._users:
                self._host = host = unwrapped(model)
                try:
                    self.handles += remember_recomputation(model, host)
                    for handle in self.hooks(model):
                        self.handles.append(handle)
                except BaseException:
                    self._take_off()
                    raise
            self._users += 1

    def remove(self) -> None:
        """Take the hooks off the model again, once for each `install`."""
        with _LOCK:
            self._users -= 1
            if not self._users:
                self._take_off()

    def _take_off(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


def attachments(model: nn.Module) -> tuple[Attachment, ...]:
    """Return what acts on a model in this context: first what acts for everyone, in order."""
    return acting_on(unwrapped(model))


def for_everyone(model: nn.Module) -> tuple[Attachment, ...]:
    """Return what acts on a model in every context outside of `base`, in order of attachment."""
    return kept_for_everyone(unwrapped(model))


def attach(model: nn.Module, attachment: Attachment) -> None:
    """Hang an attachment on a model, for everyone.

    Raises:
        InvalidInput: It is attached already.
    """
    with _LOCK:
        there = for_everyone(model)
        if attachment in (*there, *attachments(model)):
            raise InvalidInput("this patch is attached to the model already; detach it first")
        attachment.install(model)
        keep_for_everyone(unwrapped(model), (*there, attachment))


def detach(model: nn.Module, attachment: Attachment) -> None:
    """Take an attachment off a model that was attached for everyone.

    Raises:
        InvalidInput: It is not attached.
    """
    with _LOCK:
        there = for_everyone(model)
        if attachment not in there:
            raise InvalidInput("this patch is not attached to the model; attach it first")
        keep_for_everyone(unwrapped(model), tuple(one for one in there if one is not attachment))
        attachment.remove()


@contextmanager
def acting(model: nn.Module, attachment: Attachment) -> Generator[nn.Module, None, None]:
    """Have an attachment act inside the block, in this context alone.

    Raises:
        InvalidInput: It acts already.
    """
    if attachment in attachments(model):
        raise InvalidInput("this patch is attached to the model already; detach it first")
    attachment.install(model)
    try:
        with inside(unwrapped(model), Block(attachment, acts=True)):
            yield model
    finally:
        attachment.remove()


@contextmanager
def base(model: nn.Module) -> Generator[nn.Module, None, None]:
    """Use the unedited model: inside the block no attachment acts, in this context alone.

    What is attached for everyone inside the block acts after it; `acting` inside acts at once.

    Yields:
        The model itself. What acted before acts again afterwards, also after an error.
    """
    with inside(unwrapped(model), Block(None, acts=False)):
        yield model
