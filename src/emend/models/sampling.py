"""Sample texts from a model, token by token, many rows in one pass.

Draws come from a generator of the caller's on the CPU, so that a seed gives the same numbers on
every device and torch's own generator is left alone. The tokens that they choose are the same as
long as the model computes the same: two devices, precisions or numbers of threads round otherwise,
and one other token makes another text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.errors import InvalidInput, NumericalFailure
from emend.models.forward import evaluating, longest_text
from emend.models.placing import device_of


def sample(
    model: nn.Module,
    tokenizer: Any,
    ids: Tensor,
    length: int,
    generator: torch.Generator,
    *,
    top: int | None = None,
    label: str | None = None,
) -> Tensor:
    """Continue rows by tokens drawn from the model's own probabilities, at temperature 1.

    Special tokens are never drawn, so that no row ends before the others.

    Args:
        model: A causal language model; what is attached to it acts.
        tokenizer: Its tokenizer.
        ids: (B, T) int64, what the rows begin with; no padding.
        length: Tokens of each row, the first ones included.
        generator: Draws them, on the CPU.
        top: Number of most probable tokens to draw from; None draws from all.
        label: What a progress bar says; None shows none.

    Returns:
        (B, length) int64, on the CPU.

    Raises:
        InvalidInput: The model reads no texts of this length.
        NumericalFailure: The model's logits are not finite.
    """
    network: Any = model
    _check_length(model, length)
    rows, cache, device = ids, None, device_of(network.get_input_embeddings())
    steps = range(ids.shape[1], length)
    closed: Tensor | None = None
    with torch.no_grad(), evaluating(model):
        for _ in progress(steps, label, len(steps)) if label else steps:
            unread = rows if cache is None else rows[:, -1:]
            output = network(input_ids=unread.to(device), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits: Tensor = output.logits[:, -1].float()
            if closed is None:
                closed = barred(tokenizer, logits.shape[1]).to(logits.device)
            logits[:, closed] = -torch.inf
            rows = torch.cat([rows, _drawn(logits, top, generator)], dim=1)
    return rows


def _check_length(model: nn.Module, length: int) -> None:
    longest = longest_text(model)
    if longest is not None and length > longest:
        raise InvalidInput(
            f"samples of {length} tokens are asked for, expected at most the {longest} that the "
            "model reads: take shorter ones"
        )


def barred(tokenizer: Any, vocabulary: int) -> Tensor:
    """Return the ids (N,) that are no text: special tokens, and those the tokenizer has none of."""
    special = {one for one in tokenizer.all_special_ids if one < vocabulary}
    return torch.tensor([*sorted(special), *range(len(tokenizer), vocabulary)], dtype=torch.long)


def _drawn(logits: Tensor, top: int | None, generator: torch.Generator) -> Tensor:
    """Draw one token (B, 1) by each row's logits (B, vocabulary)."""
    if not bool(logits.amax(-1).isfinite().all()):  # the largest of some that are NaN is NaN
        raise NumericalFailure(
            "the model's logits are not finite, expected numbers to sample by: check its "
            "weights, or load it in float32 or bfloat16"
        )
    if top is not None:
        best = logits.cpu().topk(min(top, logits.shape[1]), dim=-1)
        drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
        return best.indices.gather(1, drawn)
    # By the inverse of the distribution function: one number a row, wherever the logits are.
    reached = logits.softmax(-1).cumsum(-1)
    drawn = torch.rand(len(logits), 1, generator=generator).to(reached) * reached[:, -1:]
    found = torch.searchsorted(reached, drawn, right=True)
    return found.clamp(max=logits.shape[1] - 1).cpu()
