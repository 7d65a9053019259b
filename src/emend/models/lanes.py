"""Prompts as those who answer them read them: one lane of tokens for each voice.

A model alone answers in one lane. Where several voices answer together, their lanes are read side
by side, and their probabilities are mixed at each position; where a voice speaks against the
others, the logarithms of their probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from emend.models.chat import chat_prompt
from emend.models.positions import join_targets, prompt_tokens
from emend.models.start import ensure_start
from emend.models.voices import Voice, voices

T = TypeVar("T")

IMPOSSIBLE = -1e4
"""Least log-probability, in nats, that voices are weighed by: infinities would cancel out."""


@dataclass(frozen=True)
class Reader:
    """A model, and the context that it is run in; readers that are equal share batches."""

    model: nn.Module
    acting: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Asked:
    """A prompt as its voices read it.

    Attributes:
        readers: Who reads.
        prompts: Token ids that each reads.
        weights: Share of each in the answer's probabilities; see `Voice`.
    """

    readers: tuple[Reader, ...]
    prompts: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> int:
        """Tokens of the longest of its prompts."""
        return max(map(len, self.prompts))


def ask(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, in_chat: bool = False
) -> list[Asked]:
    """Prompts as all that is attached to a model has them read.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompts: The prompts.
        in_chat: Whether they are a user's questions. What is attached sees these alone, and the
            tokenizer's chat template is put around what it makes of them.

    Raises:
        InvalidInput: a prompt without tokens, or no chat template for a question.
    """
    ensure_start(model, tokenizer)
    heard = voices(model, tokenizer, prompts)
    if in_chat:
        heard = [
            tuple(replace(voice, prompt=chat_prompt(tokenizer, voice.prompt)) for voice in each)
            for each in heard
        ]
    rows = iter(prompt_tokens(tokenizer, [voice.prompt for each in heard for voice in each]))
    return [_asked(each, [next(rows) for _ in each]) for each in heard]


def ask_pairs(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[tuple[Asked, tuple[int, ...]]]:
    """The same with the token ids of the target that follows each prompt."""
    ensure_start(model, tokenizer)
    heard = voices(model, tokenizer, prompts)
    said = [(v.prompt, target) for each, target in zip(heard, targets, strict=True) for v in each]
    joined = iter(join_targets(tokenizer, [one for one, _ in said], [end for _, end in said]))
    found: list[tuple[Asked, tuple[int, ...]]] = []
    for each in heard:
        rows = [next(joined) for _ in each]
        found.append((_asked(each, [prompt for prompt, _ in rows]), tuple(rows[0][1])))
    return found


def grouped(items: Iterable[T], alike: Callable[[T], Hashable]) -> list[list[T]]:
    """Items in groups of which all that matters is equal."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(alike(item), []).append(item)
    return list(groups.values())


def mixed(lanes: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Logits of what several voices say together.

    Args:
        lanes: (N, vocabulary) logits of each voice; of one alone they are returned as they are.
        weights: (N, voices) their shares, that sum to 1.

    Returns:
        (N, vocabulary) float32, log of sum_i w_i p_i; in rows with a share below 0, of
        prod_i p_i^w_i.
    """
    if len(lanes) == 1:
        return lanes[0]
    shares = weights.T[:, :, None].to(lanes[0].device)  # (voices, N, 1)
    spoken = torch.stack([logits.float().log_softmax(-1).to(shares.device) for logits in lanes])
    against = (weights < 0).any(1)  # (N,)
    if bool(against.all()):
        return _weighed(spoken, shares)
    together = (spoken + shares.clamp(min=0).log()).logsumexp(0)
    if not bool(against.any()):
        return together
    return torch.where(against.to(shares.device)[:, None], _weighed(spoken, shares), together)


def _weighed(spoken: Tensor, shares: Tensor) -> Tensor:
    """(N, vocabulary), the voices' log-probabilities by their shares, some below 0."""
    return (shares * spoken.clamp(min=IMPOSSIBLE)).sum(0)


def _asked(heard: Sequence[Voice], rows: Sequence[Sequence[int]]) -> Asked:
    return Asked(
        tuple(Reader(voice.model, voice.acting) for voice in heard),
        tuple(map(tuple, rows)),
        tuple(voice.weight for voice in heard),
    )
