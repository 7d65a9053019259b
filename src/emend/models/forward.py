"""Small helpers around a forward pass that leave the model as they found it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from emend.errors import InvalidInput, UnsupportedModel
from emend.models.hooks import hooked, together


@contextmanager
def evaluating(model: nn.Module) -> Generator[None, None, None]:
    """Switch dropout off inside the block; every module's own mode is restored.

    Of threads that do so at the same time the last one gives the modes back.
    """

    def switch_off() -> Callable[[], None]:
        training = [module for module in model.modules() if module.training]
        for module in training:
            module.training = False

        def restore() -> None:
            for module in training:
                module.training = True

        return restore

    with together(("evaluating", id(model)), switch_off):
        yield


@contextmanager
def fused(model: nn.Module) -> Generator[None, None, None]:
    """Compute activations that a model writes out in several operations by one.

    GPT-2's, GPT-Neo's and GPT-J's GELU is made of eight, which take a tenth of a search on a CPU
    and keep as many tensors for the way back. Both round to within some last bits of one another;
    half precision is left to the model's own, which rounds eight times.
    """

    def replace() -> Callable[[], None]:
        # What is offloaded or wrapped has a forward of its own.
        found = [
            module
            for module in model.modules()
            if type(module) is NewGELUActivation and "forward" not in vars(module)
        ]
        for module in found:
            vars(module)["forward"] = partial(_gelu, module)

        def restore() -> None:
            for module in found:
                del vars(module)["forward"]

        return restore

    with together(("fused", id(model)), replace):
        yield


def _gelu(module: NewGELUActivation, hidden: Tensor) -> Tensor:
    if hidden.dtype in (torch.float32, torch.float64):
        return F.gelu(hidden, approximate="tanh")
    return NewGELUActivation.forward(module, hidden)


@contextmanager
def head_at(
    model: nn.Module, rows: Tensor, columns: Tensor
) -> Generator[Callable[[Tensor], Tensor], None, None]:
    """Give the head only some positions: it is the most expensive part of a short pass.

    Args:
        model: a causal language model.
        rows: (N,) int64, batch rows.
        columns: (N,) int64, positions in them.

    Yields:
        A function from the model's `.logits` to the (N, vocabulary) logits at these positions.
    """
    find: Any = getattr(model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    if not isinstance(head, nn.Module):
        raise UnsupportedModel(
            f"{type(model).__name__} has no output embeddings; load it with AutoModelForCausalLM"
        )
    seen: list[bool] = []

    def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(True)
        hidden = args[0]  # (B, T, width)
        picked = hidden[rows.to(hidden.device), columns.to(hidden.device)]
        return (picked[None], *args[1:])  # (1, N, width)

    def pick(logits: Tensor) -> Tensor:
        if seen:
            return logits[0]
        # The head was not called as a module: all positions are there.
        return logits[rows.to(logits.device), columns.to(logits.device)]

    with hooked(head, select, before=True):
        yield pick


def target_nll(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, spared: float = 0.0
) -> Tensor:
    """Return the negative log-likelihood of target tokens, the loss of every search and training.

    Args:
        logits: (N, vocabulary) where the N tokens are predicted, in the dtype to compute in.
        targets: (N,) int64, the tokens, on any device.
        weights: (N,), a factor of each, on any device; None weighs all by 1.
        spared: A token's loss counts only above this, in nats.

    Returns:
        (N,), in the dtype and on the device of the logits. The sum over a target's tokens is the
        NLL of the target, their mean is the loss per token (weights of 1 / number of tokens).
    """
    nll = F.cross_entropy(logits, targets.to(logits.device), reduction="none")
    if spared:
        nll = (nll - spared).clamp(min=0)
    return nll if weights is None else nll * weights.to(nll)


def batches(
    lengths: Sequence[int], batch_size: int, spread: int | None = None
) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, the shortest first.

    Args:
        lengths: of each row.
        batch_size: rows in a batch, at most.
        spread: lengths in a batch differ by at most this.

    Raises:
        InvalidInput: a batch size below 1.
    """
    if batch_size < 1:
        raise InvalidInput(f"batch_size is {batch_size}; it must be at least 1")
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        too_far = spread is not None and batch and lengths[index] - lengths[batch[0]] > spread
        if len(batch) == batch_size or too_far:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the language part (multimodal models nest it)."""
    config: Any = getattr(model, "config", None)
    getter = getattr(config, "get_text_config", None)
    return getter() if callable(getter) else config


def longest_text(model: nn.Module) -> int | None:
    """Return how many tokens the model reads at most, where its configuration states it."""
    longest = getattr(text_config(model), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None


def check_length(model: nn.Module, length: int) -> None:
    """Refuse a text that the model cannot read.

    Raises:
        InvalidInput: the text has more tokens than the model has positions.
    """
    longest = longest_text(model)
    if longest is not None and length > longest:
        raise InvalidInput(
            f"a text of {length} tokens for a model that reads {longest}; shorten it"
        )
