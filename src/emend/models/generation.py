"""Greedy continuations of prompts, in batches that hold no padding at all.

Rows of unequal length run together by reading the longer prompts' last tokens one at a time,
where the shorter ones already write. Every row then sees exactly what it sees alone, in every
architecture: no padding, no position ids, no masks.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from emend.edits.joining import without_end_spaces
from emend.errors import InvalidInput
from emend.models.attachments import attachments
from emend.models.endpoint import Endpoint
from emend.models.forward import batches, check_length, evaluating
from emend.models.mixture import MixturePrompt, grouped, mixture_components, mixture_prompts
from emend.models.writing import Continuation, Writer

SPREAD = 8
"""Prompts in one batch differ by at most this many tokens: each costs one short step."""


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
    stop: str | Sequence[str] | None = None,
    in_chat: bool = False,
) -> list[str]:
    """Continue each prompt greedily.

    Prompts pass through whatever is attached to the model first. The answer does not depend on
    the batch size or the tokenizer's padding. Prompts that are equal are run once. A text stops
    at an end-of-text token, before a stop string, or where the model can read no further.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: B texts.
        max_new_tokens: the largest number of tokens to add.
        batch_size: rows in one forward pass.
        stop: strings that end a text; they are not part of it.
        in_chat: take prompts for a user's questions in the tokenizer's chat template; see `stream`.

    Returns:
        B texts: what follows the prompt, with the space it begins with, without special tokens.
        Where the prompt itself ends with a space, the model reads it without (see
        `emend.edits.joining`), and the text begins with none.

    Raises:
        InvalidInput: an empty prompt, one longer than the model reads, or no token to add.
    """
    found = continuations(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop=stop,
        in_chat=in_chat,
    )
    return [one.text for one in found]


def continuations(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 16,
    batch_size: int = 32,
    stop: str | Sequence[str] | None = None,
    in_chat: bool = False,
) -> list[Continuation]:
    """Continue each prompt greedily as `generate` does, with the probability of each new token."""
    stops = _checked(max_new_tokens, stop)
    if isinstance(model, Endpoint):
        texts = _complete(model, tokenizer, prompts, max_new_tokens, stops)
        found = [Continuation(text) for text in texts]
    else:
        asked = _asked(model, tokenizer, prompts, in_chat=in_chat)
        found = _write(model, tokenizer, asked, max_new_tokens, stops, batch_size)
    return [
        Continuation(one.text if in_chat else placed(prompt, one.text), one.log_probs)
        for prompt, one in zip(prompts, found, strict=True)
    ]


def stream(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int = 16,
    stop: str | Sequence[str] | None = None,
    in_chat: bool = False,
) -> Iterator[str]:
    """Continue one prompt greedily, as `generate` does, and give its text as it grows.

    What is attached to the model where each item is asked for must be the same for all of them.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        prompt: A text.
        max_new_tokens: The largest number of tokens to add.
        stop: Strings that end the text.
        in_chat: Take the prompt for a user's question, and continue the tokenizer's chat template
            around it; patches that act on prompts see the question alone.

    Yields:
        The text so far, after each new token; the last one is what `generate` returns. It is cut
        before what may become a stop string, and before half a character.
    """
    stops = _checked(max_new_tokens, stop)
    if isinstance(model, Endpoint):
        yield generate(model, tokenizer, [prompt], max_new_tokens=max_new_tokens, stop=stops)[0]
        return
    (asked,) = _asked(model, tokenizer, [prompt], in_chat=in_chat)
    writing = Writer(asked.runners, tokenizer, max_new_tokens, stops).begin([asked])
    while writing.is_open:
        with torch.no_grad(), evaluating(model):
            writing.step()
        text = writing.text_so_far() if writing.is_open else writing.found()[0].text
        yield text if in_chat else placed(prompt, text)


def _checked(max_new_tokens: int, stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the stop strings, once both are known to make sense."""
    if max_new_tokens < 1:
        raise InvalidInput(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(stops):
        raise InvalidInput("a stop string is empty; give it some text or leave it out")
    return stops


def placed(prompt: str, text: str) -> str:
    """Return a text without the space that it begins with where the prompt ends with one."""
    return text if without_end_spaces(prompt) == prompt else text.lstrip(" ")


def _asked(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, in_chat: bool = False
) -> list[MixturePrompt]:
    found = mixture_prompts(model, tokenizer, prompts, in_chat=in_chat)
    for asked in found:
        for runner, row in zip(asked.runners, asked.prompts, strict=True):
            check_length(runner.model, len(row))
    return found


def _write(
    model: nn.Module,
    tokenizer: Any,
    prompts_asked: Sequence[MixturePrompt],
    max_new_tokens: int,
    stops: tuple[str, ...],
    batch_size: int,
) -> list[Continuation]:
    texts: dict[MixturePrompt, Continuation] = {}
    with torch.no_grad(), evaluating(model):
        for group in grouped(dict.fromkeys(prompts_asked), _written_together):
            writer = Writer(group[0].runners, tokenizer, max_new_tokens, stops)
            for chosen in batches([asked.length for asked in group], batch_size, _spread(model)):
                chunk = [group[row] for row in chosen]
                texts.update(zip(chunk, writer.write(chunk), strict=True))
    return [texts[asked] for asked in prompts_asked]


def _complete(
    model: Endpoint,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    stops: tuple[str, ...],
) -> list[str]:
    """Continue prompts by an endpoint."""
    found = mixture_components(model, tokenizer, prompts)
    for each in found:
        if len(each) != 1 or each[0].model is not model or not each[0].prompt.strip():
            raise InvalidInput(
                f"{model.name} is asked something empty, or together with another model: an "
                "endpoint answers alone, so that only patches that act on prompts (and without "
                "contrast) can be attached"
            )
    asked = [without_end_spaces(each[0].prompt) for each in found]
    return model.complete(asked, max_new_tokens=max_new_tokens, stop=stops)


def _written_together(asked: MixturePrompt) -> Hashable:
    """Key of the prompts that one writer takes: all their components end them at one step."""
    alone = len(asked.runners) == 1
    return asked.runners, None if alone else tuple(map(len, asked.prompts))


def _spread(model: nn.Module) -> int:
    """Return by how many tokens prompts of one batch may differ."""
    whole = any(getattr(one, "needs_whole_prompts", False) for one in attachments(model))
    return 0 if whole else SPREAD
