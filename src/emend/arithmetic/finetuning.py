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
from emend.errors import InvalidInput, NumericalFailure
from emend.models import base, ensure_start, join_targets, model_fingerprint, tokens_fingerprint
from emend.models.forward import evaluating, head_at, target_nll
from emend.models.hooks import changing, frozen
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id
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
    """

    rank: int | None = None
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInput(f"{name} is {value}, expected 1 or more: raise it")

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
    cache: bool = True,
) -> WeightPatch:
    """Train a task vector on texts; the model is left as it is.

    Every linear layer but the head changes. The loss is the mean NLL of the answers' tokens. The
    result is cached by the model, the texts and the settings.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: Pairs of a prompt, which is given, and an answer, which is learned.
        settings: The settings.
        cache: Read and write the cache, in ``$EMEND_CACHE/vectors``.

    Returns:
        A patch without edits, low-rank or dense.

    Raises:
        InvalidInput: There are no texts.
        NumericalFailure: The training diverged.
    """
    settings = settings or FineTuning()
    if not texts:
        raise InvalidInput("there are no texts, expected pairs of prompt and answer: give some")
    with base(model), evaluating(model), frozen(model):
        place = _place(model, tokenizer, texts, settings) if cache else None
        if place is not None and place.is_dir():
            found = load_patch(place)
            assert isinstance(found, WeightPatch)
            return found
        factors = _train(model, tokenizer, texts, settings)
        config = {**vars(settings), "learning_rate": settings.rate, "texts": len(texts)}
        patch = WeightPatch(
            factors=factors, edits=(), method=METHOD, config=config, base=describe_base(model)
        )
    if place is not None:
        patch.save_pretrained(place)
    return patch


def _place(
    model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str]], settings: FineTuning
) -> Path:
    key = _identity.key(
        "task vector",
        model=model_fingerprint(model),
        tokens=tokens_fingerprint(model, tokenizer),
        texts=_identity.texts_digest(part for pair in texts for part in pair),
        settings=settings,
    )
    return cache_directory("vectors") / key


def _train(
    model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str]], settings: FineTuning
) -> dict[str, Factor]:
    generator = torch.Generator().manual_seed(settings.seed)
    modules = dict(_linear(model))
    weights = {name: _start(module, settings, generator) for name, module in modules.items()}
    rows = _rows(model, tokenizer, texts)
    adam = torch.optim.Adam([w for pair in weights.values() for w in pair], lr=settings.rate)
    order = _order(len(rows), settings, generator)
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(changing(module, *weights[name]))
        for step in progress(range(settings.steps), "fine-tuning"):
            for group in adam.param_groups:
                group["lr"] = settings.rate * (1 - step / settings.steps)
            loss = _loss(model, [rows[row] for row in next(order)], pad_id(tokenizer))
            if not bool(loss.isfinite()):
                raise NumericalFailure(
                    f"the loss is {float(loss)} at step {step}, expected a finite number: lower "
                    "learning_rate, or load the model in float32"
                )
            adam.zero_grad()
            loss.backward()
            adam.step()
    return {name: _factor([w.detach() for w in pair]) for name, pair in weights.items()}


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


def _rows(
    model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of each prompt and of its answer."""
    ensure_start(model, tokenizer)
    prompts, answers = zip(*texts, strict=True)
    joined = join_targets(tokenizer, list(prompts), list(answers))
    return [([*prompt], [*answer]) for prompt, answer in joined]


def _order(count: int, settings: FineTuning, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield the numbers of the texts of each step: all texts, shuffled anew in each pass."""
    waiting: list[int] = []
    while True:
        while len(waiting) < settings.batch_size:
            waiting += torch.randperm(count, generator=generator).tolist()
        yield waiting[: settings.batch_size]
        waiting = waiting[settings.batch_size :]


def _loss(model: nn.Module, rows: Sequence[tuple[list[int], list[int]]], padding: int) -> Tensor:
    """Compute the mean NLL of the answers' tokens, a scalar in float32."""
    places = [
        (number, len(prompt) - 1 + step, token)
        for number, (prompt, answer) in enumerate(rows)
        for step, token in enumerate(answer)
    ]
    numbers, columns, tokens = (torch.tensor(part) for part in zip(*places, strict=True))
    network: Any = model
    batch = pad([[*prompt, *answer[:-1]] for prompt, answer in rows], padding)
    ids = batch.input_ids.to(device_of(network.get_input_embeddings()))
    # Padding is on the right, where no token sees it.
    seen = torch.ones_like(ids)
    with head_at(model, numbers, columns) as pick:
        logits = pick(network(input_ids=ids, attention_mask=seen, use_cache=False).logits)
    return target_nll(logits.float(), tokens).mean()
