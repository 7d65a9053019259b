"""Task vectors by fine-tuning: the difference that training on texts makes to the linear layers.

Ilharco et al. 2023, arXiv 2212.04089:  tau = theta_tuned - theta_base. Here tau is what is trained:
it starts at zero and is added to the outputs of the layers, y + x tau^T, so that the model itself
is not changed and no second copy of it is needed. With a rank, tau = B A is trained (LoRA).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend import _identity
from emend._io import cache_directory
from emend._progress import progress
from emend.arithmetic.training import Kept, Stopping, Texts, answer_loss, answer_rows
from emend.errors import InvalidInput, NumericalFailure
from emend.models import base, model_fingerprint, tokens_fingerprint
from emend.models.forward import evaluating
from emend.models.hooks import changing, frozen
from emend.models.placing import device_of
from emend.models.positions import pad_id
from emend.models.structure import projection_shape
from emend.models.wrapping import plain_modules
from emend.patches import Dense, Factor, LowRank, WeightPatch, describe_base, load_patch

METHOD = "finetune"


@dataclass(frozen=True)
class FineTuning:
    """The settings of `finetune`.

    Attributes:
        rank: Rank of the change of each matrix (LoRA); None trains whole matrices.
        steps: Steps of Adam, with a learning rate that falls linearly to zero.
        learning_rate: Of the first step; by default 2e-3 with a rank, 3e-4 without.
        batch_size: Texts in one step.
        seed: Seed of the order of the texts and of A.
        hold: Factor on the mean KL(before || after), in nats, of texts that are kept.
        every: Steps between two measurements of the held-out texts.
        patience: Measurements without a lower loss after which the training ends.
    """

    rank: int | None = None
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int = 16
    seed: int = 0
    hold: float = 1.0
    every: int = 5
    patience: int = 2

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch_size", "every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{name} is {value}, expected 1 or more: raise it")
        if not 0 <= self.hold < float("inf"):
            raise InvalidInput(f"hold is {self.hold}, expected a number from 0 on: raise it")

    @property
    def rate(self) -> float:
        """The learning rate of the first step."""
        return self.learning_rate or (3e-4 if self.rank is None else 2e-3)


def finetune(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    settings: FineTuning | None = None,
    *,
    held_out: Sequence[tuple[str, str]] = (),
    kept: Sequence[str] = (),
    cache: bool = True,
) -> WeightPatch:
    """Train a task vector on texts; the model is left as it is.

    Every linear layer but the head changes. The loss is the mean NLL of the answers' tokens, and
    `hold` times the mean KL(before || after) over the tokens of texts that are kept. With held-out
    texts the training ends early, and the weights at the least held-out loss are returned. The
    result is cached by the model, all texts and the settings.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: Pairs of a prompt, which is given, and an answer, which is learned.
        settings: The settings.
        held_out: Other such pairs of the same task, to stop by.
        kept: Ordinary texts that the model must continue as before; the first
            `training.KEPT_TOKENS` tokens of each are read.
        cache: Read and write the cache, in ``$EMEND_CACHE/vectors``.

    Returns:
        A patch without edits, low-rank or dense. Its config has ``steps_taken``.

    Raises:
        InvalidInput: There are no texts, or a kept text is empty.
        NumericalFailure: The training diverged.
    """
    settings = settings or FineTuning()
    if not texts:
        raise InvalidInput("there are no texts, expected pairs of prompt and answer: give some")
    with base(model), evaluating(model), frozen(model):
        given = (texts, held_out, kept)
        place = _place(model, tokenizer, given, settings) if cache else None
        if place is not None and place.is_dir():
            found = load_patch(place)
            assert isinstance(found, WeightPatch)
            return found
        factors, taken = _train(model, tokenizer, given, settings)
        config = {**vars(settings), "learning_rate": settings.rate, "texts": len(texts)}
        config |= {"held_out": len(held_out), "kept": len(kept), "steps_taken": taken}
        patch = WeightPatch(
            factors=factors, edits=(), method=METHOD, config=config, base=describe_base(model)
        )
    if place is not None:
        patch.save_pretrained(place)
    return patch


def _place(model: nn.Module, tokenizer: Any, given: Texts, settings: FineTuning) -> Path:
    texts, held_out, kept = given
    used: dict[str, Any] = vars(settings).copy()
    further = {name: used.pop(name) for name in ("hold", "every", "patience")}
    inputs: dict[str, Any] = {"settings": used}
    if held_out:
        digest = _identity.texts_digest(part for pair in held_out for part in pair)
        inputs["held_out"] = [digest, further["every"], further["patience"]]
    if kept:
        inputs["kept"] = [_identity.texts_digest(kept), further["hold"]]
    key = _identity.key(
        "task vector",
        model=model_fingerprint(model),
        tokens=tokens_fingerprint(model, tokenizer),
        texts=_identity.texts_digest(part for pair in texts for part in pair),
        **inputs,
    )
    return cache_directory("vectors") / key


def _train(
    model: nn.Module, tokenizer: Any, given: Texts, settings: FineTuning
) -> tuple[dict[str, Factor], int]:
    """Return the trained change of each layer, and the steps that it took."""
    generator = torch.Generator().manual_seed(settings.seed)
    modules = dict(_linear(model))
    weights = {name: _start(module, settings, generator) for name, module in modules.items()}
    every = [weight for pair in weights.values() for weight in pair]
    texts, held_out, kept = given
    rows = answer_rows(model, tokenizer, texts)
    unchanged = Kept(model, tokenizer, kept)
    stopping = Stopping(model, tokenizer, held_out, every, settings.patience)
    adam = torch.optim.Adam(every, lr=settings.rate)
    order = _order(len(rows), settings.batch_size, generator)
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(changing(module, *weights[name]))
        for step in progress(range(settings.steps), "fine-tuning"):
            if step % settings.every == 0 and stopping.ends(step):
                break
            for group in adam.param_groups:
                group["lr"] = settings.rate * (1 - step / settings.steps)
            adam.zero_grad()
            loss = answer_loss(model, [rows[row] for row in next(order)], pad_id(tokenizer))
            _check(loss, step)
            loss.backward()
            if kept and settings.hold:  # its own pass: the graph of one is in memory at a time
                (settings.hold * unchanged.loss(step)).backward()
            adam.step()
        taken = stopping.finish(settings.steps)
    return {name: _factor([w.detach() for w in pair]) for name, pair in weights.items()}, taken


def _check(loss: Tensor, step: int) -> None:
    if not bool(loss.isfinite()):
        raise NumericalFailure(
            f"the loss is {float(loss)} at step {step}, expected a finite number: lower "
            "learning_rate, or load the model in float32"
        )


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every linear layer but the head, whose weight may be the embedding's."""
    network: Any = model
    head = network.get_output_embeddings()
    for name, module in plain_modules(model):
        if module is not head and projection_shape(module) is not None:
            yield name, module


def _start(module: nn.Module, settings: FineTuning, generator: torch.Generator) -> list[Tensor]:
    """Return the trained matrices: A (r, in) and B (out, r), or the whole change (out, in)."""
    shape = projection_shape(module)
    assert shape is not None
    out, inner = shape
    device = device_of(module)
    if settings.rank is None:
        return [torch.zeros(out, inner, device=device, requires_grad=True)]
    rank = min(settings.rank, out, inner)
    a = torch.randn(rank, inner, generator=generator) * inner**-0.5
    return [
        a.to(device).requires_grad_(),
        torch.zeros(out, rank, device=device, requires_grad=True),
    ]


def _factor(matrices: Sequence[Tensor]) -> Factor:
    return Dense(matrices[0]) if len(matrices) == 1 else LowRank(matrices[0], matrices[1])


def _order(count: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield the numbers of the texts of each step: all texts, shuffled anew in each pass."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]
