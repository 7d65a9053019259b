"""One narrow door for every kind of patch.

Weights, hooks, prompts and routes all hang on the model they patch through this list, so that
`score` and `generate` see a patched model the same way whatever patched it, and `base` gives the
unedited model back for as long as it is needed. The list is kept on the model, never in a global.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn

from emend.errors import InvalidInput

ATTRIBUTE = "_emend_attachments"


@runtime_checkable
class Attachment(Protocol):
    """What a patch hangs on a model."""

    patch: Any
    """The patch this belongs to."""

    def prepare(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as the model should read them; a weight patch returns them unchanged."""
        ...

    def suspended(self) -> AbstractContextManager[Any]:
        """A context in which the patch has no effect."""
        ...


def attachments(model: nn.Module) -> tuple[Attachment, ...]:
    """What is attached to a model, in the order of attachment."""
    return tuple(getattr(model, ATTRIBUTE, ()))


def attach(model: nn.Module, attachment: Attachment) -> None:
    """Hang an attachment on a model.

    Raises:
        InvalidInput: it is attached already.
    """
    there = attachments(model)
    if any(one is attachment for one in there):
        raise InvalidInput("this patch is attached to the model already; detach it first")
    _keep(model, (*there, attachment))


def detach(model: nn.Module, attachment: Attachment) -> None:
    """Take an attachment off a model.

    Raises:
        InvalidInput: it is not attached.
    """
    there = attachments(model)
    kept = tuple(one for one in there if one is not attachment)
    if len(kept) == len(there):
        raise InvalidInput("this patch is not attached to the model; attach it first")
    _keep(model, kept)


@contextmanager
def base(model: nn.Module) -> Generator[nn.Module, None, None]:
    """The unedited model: within the block nothing that is attached has any effect.

    Yields:
        The model itself. What was attached is back afterwards, also after an error.
    """
    there = attachments(model)
    with ExitStack() as stack:
        for attachment in there:
            stack.enter_context(attachment.suspended())
        _keep(model, ())
        try:
            yield model
        finally:
            # What was attached inside the block stays attached.
            _keep(model, (*there, *attachments(model)))


def prepare(model: nn.Module, prompts: Sequence[str]) -> list[str]:
    """Prompts passed through every attachment, in the order of attachment."""
    prepared = list(prompts)
    for attachment in attachments(model):
        prepared = attachment.prepare(prepared)
    return prepared


def _keep(model: nn.Module, kept: tuple[Attachment, ...]) -> None:
    if kept:
        object.__setattr__(model, ATTRIBUTE, kept)
    elif hasattr(model, ATTRIBUTE):
        object.__delattr__(model, ATTRIBUTE)
