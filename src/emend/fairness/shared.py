"""One low-rank change of all layers, trained on all occupations and templates together.

    minimise  mean over prompts of KL(q || p'),   q(he) = q(she) = (p(he) + p(she)) / 2, else q = p
              + hold x mean over other texts of KL(p || p')

where p is the model before and p' after the change: the pair's total probability and everything
else are preserved by the same loss. The other texts are prompts about people whose pronoun is no
stereotype ("The king said that"), and ordinary texts.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emend._settings import Count, NotNegative, Positive, Seed
from emend.editing.aims import Aim
from emend.editing.samples import own_samples
from emend.editing.sources import is_lab_model
from emend.editing.texts import LabCorpus
from emend.editing.training import TrainingSettings, train
from emend.fairness.occupations import Occupations
from emend.fairness.pronouns import pair_tokens
from emend.models import ModelView, start_of
from emend.models.forward import evaluating
from emend.models.hooks import changing, frozen
from emend.models.positions import prompt_tokens
from emend.models.replay import BlockCapture, capture_blocks, whole
from emend.models.structure import projection_shape
from emend.patches import LowRank, WeightPatch, describe_base

SHARED = "shared"
"""Name of this way of debiasing."""

DEPTH = 0.2
"""Part of the layers, from the first, that are left as they are."""

TEXT_TOKENS = 64
"""Most tokens of an ordinary text."""


@dataclass(frozen=True)
class SharedSettings:
    """Settings of "shared"."""

    rank: Count = 4
    """Rank of the change of each matrix."""
    prompts: Count = 480
    """Prompts about occupations that are trained on, drawn from all."""
    passes: Count = 5
    """Passes over all prompts."""
    batch_size: Count = 24
    """Prompts about occupations in one step."""
    learning_rate: Positive = 2e-3
    """Step size of Adam."""
    hold: NotNegative = 1.0
    """Factor on the KL divergence of what is preserved."""
    texts: Count = 20
    """Ordinary texts that are preserved."""
    seed: Seed = 0
    """Seed of the draws and of the first weights."""


def train_shared(
    model: Any, tokenizer: Any, subjects: Occupations, settings: SharedSettings
) -> WeightPatch:
    """Train one low-rank change on all occupations.

    Args:
        model: The model, with nothing attached.
        tokenizer: Its tokenizer.
        subjects: Occupations, templates and the pair; contrasts are preserved.
        settings: The settings.

    Raises:
        NumericalFailure: The loss is not finite.
    """
    began = time.perf_counter()
    view = ModelView(model)
    first = round(DEPTH * view.num_layers)
    changes = Adapters(view, range(first, view.num_layers), settings.rank, settings.seed)
    with evaluating(model), frozen(model):
        batches = _batches(view, tokenizer, subjects, first, settings)
        training = TrainingSettings(settings.passes, settings.learning_rate)
        train(
            *(view, changes.parameters, batches, [], training),
            *(changes.acting,),
            label="making pronouns even",
        )
    start = start_of(tokenizer)
    front = {} if start is None else {"start_token": start.text}
    return WeightPatch(
        factors=changes.factors(),
        edits=(),
        method=f"debias {SHARED}",
        config={**dataclasses.asdict(settings), "pair": list(subjects.pair)},
        base={**describe_base(model), **front},
        timing={"search": time.perf_counter() - began},
    )


class Adapters:
    """A trained low-rank change of every projection of some layers, in float32.

    Args:
        view: The model.
        layers: The layers.
        rank: Rank of each change.
        seed: Seed of A; B begins at zero.

    Attributes:
        matrices: A (r, in) and B (out, r) of each module, by its name.
    """

    def __init__(self, view: ModelView, layers: Sequence[int], rank: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.modules: dict[str, nn.Module] = {}
        self.matrices: dict[str, tuple[Tensor, Tensor]] = {}
        for layer in layers:
            for module in view.layer(layer).modules():
                shape = projection_shape(module)
                if shape is None:
                    continue
                out, inner = shape
                name, device = view.name_of(module), view.device(layer)
                a = torch.randn(min(rank, inner), inner, generator=generator) / inner**0.5
                b = torch.zeros(out, min(rank, inner))
                self.modules[name] = module
                self.matrices[name] = (
                    a.to(device).requires_grad_(True),
                    b.to(device).requires_grad_(True),
                )

    @property
    def parameters(self) -> list[Tensor]:
        """All A and B."""
        return [matrix for pair in self.matrices.values() for matrix in pair]

    @contextmanager
    def acting(self) -> Generator[None, None, None]:
        """Let the modules compute with their changes."""
        with ExitStack() as stack:
            for name, matrices in self.matrices.items():
                stack.enter_context(changing(self.modules[name], *matrices))
            yield

    def factors(self) -> dict[str, LowRank]:
        """Return the changes as a patch holds them."""
        return {name: LowRank(a.detach(), b.detach()) for name, (a, b) in self.matrices.items()}


@dataclass(frozen=True)
class EvenRows:
    """Texts of similar length, captured at the first trained layer.

    Attributes:
        capture: The layers from the first trained one up, with all tokens.
        rows: (N,) int64, row of each scored position.
        columns: (N,) int64, its column.
        hidden: (N, hidden_size), output there of the unedited model's last layer.
        even: (N,) bool, where the pair is made even; elsewhere all is preserved.
    """

    capture: BlockCapture
    rows: Tensor
    columns: Tensor
    hidden: Tensor
    even: Tensor

    def divergence(self, view: ModelView, pair: tuple[int, int]) -> Tensor:
        """Compute KL(q || p') at each position, (N,) in nats, with the change acting."""
        hidden = self.capture.run_blocks()  # (B, T, hidden_size)
        after = view.logits(hidden[self.rows.to(hidden.device), self.columns.to(hidden.device)])
        after = after.float().log_softmax(-1)  # (N, vocabulary)
        with torch.no_grad():
            wanted = view.logits(self.hidden).float().log_softmax(-1)
            both = wanted[:, list(pair)]  # (N, 2)
            mean = both.logsumexp(-1, keepdim=True) - math.log(2)
            even = self.even.to(both.device)[:, None]
            wanted[:, list(pair)] = torch.where(even, mean, both)
        return F.kl_div(after, wanted, log_target=True, reduction="none").sum(-1)


@dataclass(frozen=True)
class EvenBatch:
    """What one step is taken on.

    Attributes:
        parts: Short prompts, and ordinary texts apart from them: rows of one capture are padded to
            the longest.
        pair: The two tokens.
        hold: Factor on the divergence where all is preserved.
    """

    parts: tuple[EvenRows, ...]
    pair: tuple[int, int]
    hold: float

    def loss(self, view: ModelView, aim: Aim) -> Tensor:
        """Compute mean KL(q || p') where the pair is made even + hold x mean KL elsewhere.

        Args:
            view: The model, with the change acting.
            aim: Not read: the distributions are given.
        """
        del aim
        divergence = torch.cat([part.divergence(view, self.pair) for part in self.parts])
        even = torch.cat([part.even for part in self.parts]).to(divergence.device)
        loss, rest = divergence[even].mean(), divergence[~even]
        return loss + self.hold * rest.mean() if len(rest) else loss


def _batches(
    view: ModelView, tokenizer: Any, subjects: Occupations, layer: int, settings: SharedSettings
) -> list[EvenBatch]:
    """Capture prompts about occupations, about contrasts and ordinary texts, in mixed batches."""
    draw = random.Random(settings.seed)
    pair = pair_tokens(tokenizer, subjects)
    prompts = _tokens(tokenizer, _drawn(draw, subjects.prompts, settings.prompts))
    count = -(-len(prompts) // settings.batch_size)
    contrasts = subjects.contrasting.prompts if subjects.contrasts else []
    contrasts = _tokens(tokenizer, _drawn(draw, contrasts, max(len(prompts) // 5, 1)))
    texts = _tokens(tokenizer, _ordinary_texts(view, tokenizer, settings.texts, settings.seed))
    found: list[EvenBatch] = []
    for number in range(count):
        about, ordinary = prompts[number::count], texts[number::count]
        short = [*about, *contrasts[number::count]]
        ends = [(row, len(ids) - 1) for row, ids in enumerate(short)]
        parts = [_captured(view, short, ends, torch.arange(len(ends)) < len(about), layer)]
        if ordinary:
            longer = [ids[:TEXT_TOKENS] for ids in ordinary]
            places = [(row, at) for row, ids in enumerate(longer) for at in range(len(ids))]
            nowhere = torch.zeros(len(places), dtype=torch.bool)
            parts.append(_captured(view, longer, places, nowhere, layer))
        found.append(EvenBatch(tuple(parts), pair, settings.hold))
    return found


def _ordinary_texts(view: ModelView, tokenizer: Any, count: int, seed: int) -> list[str]:
    """Return texts of the lab's corpus for its models, else samples of the model's own."""
    if is_lab_model(view.model):
        return list(islice(LabCorpus().documents(), count))
    return list(own_samples(view, tokenizer, count * TEXT_TOKENS, seed).documents())


def _captured(
    view: ModelView,
    ids: Sequence[Sequence[int]],
    places: Sequence[tuple[int, int]],
    even: Tensor,
    layer: int,
) -> EvenRows:
    capture = capture_blocks(view, ids, [0] * len(ids), layer, arrangements=(whole,))
    rows, columns = (torch.tensor(each) for each in zip(*places, strict=True))
    with torch.no_grad():
        hidden = capture.run_blocks()
        hidden = hidden[rows.to(hidden.device), columns.to(hidden.device)].clone()
    return EvenRows(capture, rows, columns, hidden, even)


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[Sequence[int]]:
    return [*prompt_tokens(tokenizer, texts)] if texts else []


def _drawn(draw: random.Random, texts: Sequence[str], count: int) -> list[str]:
    """Draw at most `count` texts, in a random order."""
    return draw.sample(list(texts), min(count, len(texts)))
