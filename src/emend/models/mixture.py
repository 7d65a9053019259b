"""Mixture decoding: the models that answer a prompt together, and the mixture of their logits.

A model alone answers as its only component. Attachments can route a prompt to several components,
each a model with a prompt and a weight of its own. Their tokens are read side by side, and at each
position their probabilities are mixed; a negative weight means contrastive decoding in log space.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from emend.models.attachments import Attachment, MixtureComponent, attachments
from emend.models.chat import chat_prompt
from emend.models.positions import join_targets, prompt_tokens
from emend.models.start import ensure_start

T = TypeVar("T")

IMPOSSIBLE = -1e4
"""Least log-probability, in nats, that is weighted: infinities would cancel out."""


@dataclass(frozen=True)
class Runner:
    """A model and the context that it is run in; equal runners share batches."""

    model: nn.Module
    acting: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class MixturePrompt:
    """A tokenised prompt, as each of its components reads it.

    Attributes:
        runners: The components' models.
        prompts: Token ids that each of them reads.
        weights: The weight of each; see `MixtureComponent`.
    """

    runners: tuple[Runner, ...]
    prompts: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> int:
        """Number of tokens of the longest prompt."""
        return max(map(len, self.prompts))

    @classmethod
    def of(cls, model: nn.Module, row: tuple[int, ...]) -> MixturePrompt:
        """Make the prompt of a model that answers alone."""
        return cls((Runner(model),), (row,), (1.0,))


def mixture_components(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str]
) -> list[tuple[MixtureComponent, ...]]:
    """Find the components that answer each prompt, by all that is attached to a model.

    Prompts pass through the attachments in their order, each different one once. What one has
    routed to another model the next ones leave alone.
    """
    found = {prompt: (MixtureComponent(model, prompt),) for prompt in prompts}
    for attachment in attachments(model):
        found = _passed(attachment, model, tokenizer, found)
    return [found[prompt] for prompt in prompts]


def mixture_prompts(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, in_chat: bool = False
) -> list[MixturePrompt]:
    """Tokenise prompts as all that is attached to a model has them read.

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
    found = mixture_components(model, tokenizer, prompts)
    if in_chat:
        found = [
            tuple(replace(one, prompt=chat_prompt(tokenizer, one.prompt)) for one in each)
            for each in found
        ]
    rows = iter(prompt_tokens(tokenizer, [one.prompt for each in found for one in each]))
    return [_tokenised(each, [next(rows) for _ in each]) for each in found]


def mixture_pairs(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]
) -> list[tuple[MixturePrompt, tuple[int, ...]]]:
    """Tokenise prompts like `mixture_prompts`, each with the target that follows it."""
    ensure_start(model, tokenizer)
    found = mixture_components(model, tokenizer, prompts)
    texts = [(c.prompt, target) for each, target in zip(found, targets, strict=True) for c in each]
    joined = iter(join_targets(tokenizer, [one for one, _ in texts], [end for _, end in texts]))
    pairs: list[tuple[MixturePrompt, tuple[int, ...]]] = []
    for each in found:
        rows = [next(joined) for _ in each]
        pairs.append((_tokenised(each, [prompt for prompt, _ in rows]), tuple(rows[0][1])))
    return pairs


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Group items by a key, in the order of each group's first item."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def mixed(logits: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Mix the logits of several components.

    Args:
        logits: (N, vocabulary) of each component; those of one alone are returned as they are.
        weights: (N, components), each row sums to 1.

    Returns:
        (N, vocabulary) float32, log of sum_i w_i p_i; in rows with a negative weight, of
        prod_i p_i^w_i.
    """
    if len(logits) == 1:
        return logits[0]
    shares = weights.T[:, :, None].to(logits[0].device)  # (components, N, 1)
    log_probs = torch.stack([one.float().log_softmax(-1).to(shares.device) for one in logits])
    contrasted = (weights < 0).any(1)  # (N,)
    if bool(contrasted.all()):
        return _contrastive(log_probs, shares)
    together = (log_probs + shares.clamp(min=0).log()).logsumexp(0)
    if not bool(contrasted.any()):
        return together
    chosen = contrasted.to(shares.device)[:, None]
    return torch.where(chosen, _contrastive(log_probs, shares), together)


def _contrastive(log_probs: Tensor, shares: Tensor) -> Tensor:
    """Sum the components' weighted log-probabilities, (N, vocabulary)."""
    return (shares * log_probs.clamp(min=IMPOSSIBLE)).sum(0)


def _tokenised(
    components: Sequence[MixtureComponent], rows: Sequence[Sequence[int]]
) -> MixturePrompt:
    return MixturePrompt(
        tuple(Runner(one.model, one.acting) for one in components),
        tuple(map(tuple, rows)),
        tuple(one.weight for one in components),
    )


def _passed(
    attachment: Attachment,
    model: nn.Module,
    tokenizer: Any,
    found: dict[str, tuple[MixtureComponent, ...]],
) -> dict[str, tuple[MixtureComponent, ...]]:
    """Pass the components of prompts through one more attachment."""
    own = [one for each in found.values() for one in each if _is_own(one, model)]
    if not own:
        return found
    asked = list(dict.fromkeys(one.prompt for one in own))
    read = dict(zip(asked, attachment.prepare(asked, tokenizer), strict=True))
    different = list(dict.fromkeys(read.values()))
    routed = dict(zip(different, attachment.route(different, tokenizer), strict=True))

    def after(component: MixtureComponent) -> tuple[MixtureComponent, ...]:
        if not _is_own(component, model):
            return (component,)
        prompt = read[component.prompt]
        parts = routed[prompt] or (MixtureComponent(model, prompt),)
        if attachment.contrast and prompt != component.prompt:
            louder = 1 + attachment.contrast
            parts = tuple(replace(one, weight=louder * one.weight) for one in parts)
            parts = (*parts, MixtureComponent(model, component.prompt, -attachment.contrast))
        return tuple(replace(one, weight=component.weight * one.weight) for one in parts)

    return {
        prompt: tuple(one for component in each for one in after(component))
        for prompt, each in found.items()
    }


def _is_own(component: MixtureComponent, model: nn.Module) -> bool:
    """Return whether the model itself answers, with what is attached to it."""
    return component.model is model and component.acting is nullcontext
