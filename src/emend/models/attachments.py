"""One narrow door for every kind of patch.

Weights, hooks, prompts and routes all hang on the model they patch through this list, so that
`score` and `generate` see a patched model the same way whatever patched it, and `base` gives the
unedited model back for as long as it is needed. The list is kept on the model, never in a global.

What an attachment may do, beside the hooks that it registers:

    prepare     say what the model shall read instead of a prompt       (a prompt patch)
    route       say who shall answer a prompt, and with what weight     (a routed patch)
    passes.py   hooks learn there where each row's prompt ends          (a hook patch)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from emend.errors import InvalidInput

ATTRIBUTE = "_emend_attachments"


@dataclass(frozen=True, eq=False)
class Voice:
    """Who answers a prompt, what it reads, and how much its word counts.

    Attributes:
        model: A causal language model with the vocabulary of the one that was asked.
        prompt: What it reads.
        weight: Its share of the answer's probabilities; those of a prompt's voices sum to 1. One
            below 0 speaks against the others: then not probabilities are mixed, but their
            logarithms.
        acting: A context that the model is run in; voices of one model that are run alike
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
        handles: Of the hooks that it has on the model.
        contrast: How much of what the model would say to a prompt as it was is taken off what it
            says to what `prepare` made of it: alpha of context-aware decoding (Shi et al. 2023,
            arXiv 2305.14739), p ~ p(y | prepared)^(1 + alpha) / p(y | prompt)^alpha.
    """

    def __init__(self, patch: Any) -> None:
        self.patch = patch
        self.contrast = 0.0
        self.handles: list[Any] = []
        self._suspensions = 0

    @property
    def active(self) -> bool:
        """Whether the patch has an effect now."""
        return self._suspensions == 0

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """The prompts as the model should read them.

        Args:
            prompts: Different prompts.
            tokenizer: The model's.
        """
        del tokenizer
        return list(prompts)

    def route(self, prompts: Sequence[str], tokenizer: Any) -> list[tuple[Voice, ...] | None]:
        """Who answers each prompt; None where the model itself does, as it does alone.

        Args:
            prompts: Different prompts, prepared.
            tokenizer: The model's.
        """
        del tokenizer
        return [None] * len(prompts)

    def samples(self) -> list[dict[str, Any]]:
        """What the patch noted of how it answered prompts, one JSON-able object for each."""
        return []

    @contextmanager
    def suspended(self) -> Generator[None, None, None]:
        """The patch has no effect inside; may be nested."""
        self._suspensions += 1
        try:
            yield
        finally:
            self._suspensions -= 1

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()


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


def voices(model: nn.Module, tokenizer: Any, prompts: Sequence[str]) -> list[tuple[Voice, ...]]:
    """Who answers each prompt, by all that is attached to a model.

    Prompts pass through the attachments in their order, each different one once. What one has
    given to another model the next ones leave alone.
    """
    heard = {prompt: (Voice(model, prompt),) for prompt in prompts}
    for attachment in attachments(model):
        heard = _passed(attachment, model, tokenizer, heard)
    return [heard[prompt] for prompt in prompts]


def _passed(
    attachment: Attachment, model: nn.Module, tokenizer: Any, heard: dict[str, tuple[Voice, ...]]
) -> dict[str, tuple[Voice, ...]]:
    """The voices of prompts after one more attachment."""
    own = [voice for each in heard.values() for voice in each if _is_own(voice, model)]
    if not own:
        return heard
    asked = list(dict.fromkeys(voice.prompt for voice in own))
    read = dict(zip(asked, attachment.prepare(asked, tokenizer), strict=True))
    different = list(dict.fromkeys(read.values()))
    routed = dict(zip(different, attachment.route(different, tokenizer), strict=True))

    def after(voice: Voice) -> tuple[Voice, ...]:
        if not _is_own(voice, model):
            return (voice,)
        prompt = read[voice.prompt]
        found = routed[prompt] or (Voice(model, prompt),)
        if attachment.contrast and prompt != voice.prompt:
            louder = 1 + attachment.contrast
            found = tuple(replace(one, weight=louder * one.weight) for one in found)
            found = (*found, Voice(model, voice.prompt, -attachment.contrast))
        return tuple(replace(one, weight=voice.weight * one.weight) for one in found)

    return {
        prompt: tuple(one for voice in each for one in after(voice))
        for prompt, each in heard.items()
    }


def _is_own(voice: Voice, model: nn.Module) -> bool:
    """Whether the model itself answers, with what is attached to it."""
    return voice.model is model and voice.acting is nullcontext


def _keep(model: nn.Module, kept: tuple[Attachment, ...]) -> None:
    if kept:
        object.__setattr__(model, ATTRIBUTE, kept)
    elif hasattr(model, ATTRIBUTE):
        object.__delattr__(model, ATTRIBUTE)
