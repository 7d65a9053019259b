"""Who answers a prompt: the mixture components that all attachments together make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from emend.models.attachments import Attachment, attachments


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
