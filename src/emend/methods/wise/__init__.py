"""WISE: a side memory of one late down-projection, used where it would move the activation far.

Wang et al. 2024, arXiv 2405.14768.

    gap(x) = |sigma(W' k) - sigma(W k)|                                           eq. 2
    W' where gap(x) > eps, else W                                                 eq. 3
    L = -log p_W'(y | x) + max(0, gap(x_i) - alpha) + max(0, beta - gap(x_e))
        + max(0, gamma - (gap(x_e) - gap(x_i)))                                   eq. 4
    W' <- W' - eta M_i * grad L         M_i: a random mask of part rho of the weights, of shard i
    W' <- W + TIES(D_1, ..., D_k)       D_i: what shard i changed                 eq. 7

    paper                here
    W, W'                a late down-projection, and `memories/side.py`: W + delta
    k                    what it is given at the prompt's last token
    x_e, x_i             the edits; texts that the model writes by itself (`irrelevant`)
    alpha, beta, gamma   low, high, margin
    eps                  `ratio` times the least gap of a memory's edits
    rho, shards          density, shard_size; merge_every, kept (the density of TIES)

Where this deviates from the authors' code, and why: a memory acts from the prompt's last token on
and not on all tokens, so that one reading of a prompt suffices and answers do not depend on what is
read beside it; the gap is read at that token and not averaged over all. The edits of a shard are
trained together in batches, again and again, and not one after the other, which forgets. The steps
are Adam's, in parts of the weights' own size: a plain step of 1.0, as published, is right for the
model that it was chosen on and moves nothing in another, whose last norm hides it.
Irrelevant texts are sampled from the model; their every token counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, NotNegative, Part, Positive, Seed
from emend.editing.keys import forward, watching
from emend.editing.rows import context_rows
from emend.editing.templates import sample_templates
from emend.editing.ties import merged
from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.methods._method import method
from emend.methods.wise._patch import SidePatch, gaps
from emend.models import ModelView, encode
from emend.models.forward import evaluating, target_nll
from emend.models.hooks import changing, frozen
from emend.models.replay import BlockCapture, capture_blocks
from emend.models.structure import text_config
from emend.patches import MemoryPatch, describe_base

LENGTH = 12
"""Tokens of a text that the model writes by itself."""


@dataclass(frozen=True)
class WiseConfig:
    """Settings of WISE."""

    layer: int | None = None
    """Block whose down-projection has side memories; by default seven eighths up."""
    learning_rate: Positive = 0.1
    """Step size of Adam, in parts of the root mean square of the layer's weights."""
    steps: Count = 70
    """Passes over a shard's edits, at most."""
    batch_size: Count = 8
    """Edits in one step."""
    low: NotNegative = 5.0
    """Alpha: the gap that irrelevant texts may have."""
    high: NotNegative = 20.0
    """Beta: the gap that edits must have."""
    margin: NotNegative = 10.0
    """Gamma: by how much the gaps of edits must be larger than those of irrelevant texts."""
    density: Part = 0.2
    """Rho: part of the weights that a shard may change."""
    clamp: Positive = 1.0
    """Bound on the change of each weight."""
    ratio: Positive = 0.88
    """A memory is used where the gap is larger than this part of its edits' least."""
    shard_size: Count = 500
    """Edits that share a mask."""
    merge_every: Count = 1000
    """Shards of so many edits are merged to one memory."""
    kept: Part = 0.53
    """Part of each shard's change, the largest, that merging keeps."""
    irrelevant: Count = 40
    """Texts that the model writes by itself, to be left alone."""
    stop_below: NotNegative = 0.02
    """A shard is done when the loss of each of its batches is below this; 0 takes all passes."""
    seed: Seed = 0
    """Of masks and texts."""


@method(
    title="WISE: side memories of one late layer, used where they would change much",
    paper="Wang et al. 2024, arXiv 2405.14768",
    when="a long stream of edits with little harm elsewhere, at a cost that does not grow",
    memory=True,
)
def wise(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: WiseConfig,
    previous: MemoryPatch | None = None,
) -> SidePatch:
    """Write edits into side memories."""
    started = time.perf_counter()
    view = ModelView(model)
    if config.layer is None:
        layer = view.nearest_editable(min(round(0.875 * view.num_layers), view.num_layers - 1))
    else:
        layer = view.numbered([config.layer])[0]
    module = view.name_of(view.down_projection(layer))
    memories, everything, new = _begun(previous, edits, module, config)
    training = _Training(view, tokenizer, layer, config)
    by_id = {edit.id: edit for edit in everything}
    for number, memory in enumerate(memories):
        if new.intersection(memory.ids):
            memories[number] = training.trained(memory, [by_id[id_] for id_ in memory.ids])
    memories = training.all_merged(memories, by_id)
    seconds = time.perf_counter() - started
    return SidePatch(
        edits=everything,
        method="wise",
        config=dataclasses.asdict(config),
        base=describe_base(model),
        timing={"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)},
        tensors={f"delta.{n}": memory.delta for n, memory in enumerate(memories)},
        details={
            "module": module,
            "memories": [list(memory.ids) for memory in memories],
            "thresholds": [memory.threshold for memory in memories],
            "activation": training.activation,
        },
    )


@dataclass(frozen=True)
class _Memory:
    """A shard, or shards that were merged.

    Attributes:
        ids: Its edits.
        delta: (width, inner), its change; a single zero before it is trained.
        threshold: The gap from which on it is used.
    """

    ids: tuple[str, ...]
    delta: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(1, 1))
    threshold: float = 0.0


def _begun(
    previous: MemoryPatch | None, edits: tuple[Edit, ...], module: str, config: WiseConfig
) -> tuple[list[_Memory], tuple[Edit, ...], set[str]]:
    """Return the memories, with new edits in the last shard and in further ones.

    What stays of a memory that lost an edit is written again, as new edits are.

    Returns:
        The memories, all edits, and the ids of those to write.
    """
    memories: list[_Memory] = []
    everything = edits
    rest = [edit.id for edit in edits]
    if previous is not None and previous.edits:
        assert isinstance(previous, SidePatch)
        if previous.details["module"] != module:
            raise InvalidInput(
                f"the side memories are of {previous.details['module']}, expected {module}: go on "
                "with the layer that they were made at"
            )
        everything = (*previous.edits, *edits)
        for n, ids in enumerate(previous.details["memories"]):
            threshold = previous.details["thresholds"][n]
            if math.isfinite(threshold):
                memories.append(_Memory(tuple(ids), previous.tensors[f"delta.{n}"], threshold))
            else:
                rest = [*ids, *rest]
    new = set(rest)
    if memories and len(memories[-1].ids) < config.shard_size:
        room = config.shard_size - len(memories[-1].ids)
        ids = (*memories[-1].ids, *rest[:room])
        memories[-1], rest = dataclasses.replace(memories[-1], ids=ids), rest[room:]
    memories += [
        _Memory(tuple(rest[first : first + config.shard_size]))
        for first in range(0, len(rest), config.shard_size)
    ]
    return memories, everything, new


class _Training:
    """Trains shards of one down-projection.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        layer: The block.
        config: The settings.
    """

    def __init__(self, view: ModelView, tokenizer: Any, layer: int, config: WiseConfig) -> None:
        self.view, self.tokenizer, self.layer, self.config = view, tokenizer, layer, config
        settings = text_config(view.model)
        names = (getattr(settings, n, None) for n in ("hidden_act", "activation_function"))
        self.activation = next((name for name in names if isinstance(name, str)), "linear")
        self.irrelevant = self._irrelevant()

    def _irrelevant(self) -> tuple[Tensor, Tensor]:
        """Keys (N, inner) and outputs (N, width) of texts that the model writes by itself."""
        templates = sample_templates(
            self.view.model,
            self.tokenizer,
            seed=self.config.seed,
            lengths=((LENGTH, self.config.irrelevant),),
        )
        batch = encode(self.tokenizer, [text.replace("{}", "") for text in templates[1:]])
        with watching(self.view, [self.layer]) as seen:
            forward(self.view, batch.input_ids, self.layer)
        real = batch.attention_mask.bool()
        given, put_out = (
            each.reshape(*real.shape, -1)[real.to(each.device)].float().cpu()
            for each in seen[self.layer]
        )
        return given, put_out

    def trained(self, memory: _Memory, edits: Sequence[Edit]) -> _Memory:
        """A shard after the passes over its edits, with its threshold."""
        batches = [
            _Edits(
                self.view, self.tokenizer, edits[first : first + self.config.batch_size], self.layer
            )
            for first in range(0, len(edits), self.config.batch_size)
        ]
        keys = torch.cat([batch.keys for batch in batches])
        shape = self.view.hidden_size, self.view.intermediate_size(self.layer)
        scale = float(self.view.matrix(self.layer).detach().float().square().mean().sqrt())
        mask = torch.rand(shape, generator=self._generator(memory)) < self.config.density
        delta = memory.delta.expand(shape).clone().requires_grad_(True)
        adam = torch.optim.Adam([delta], lr=self.config.learning_rate * scale)
        with evaluating(self.view.model), frozen(self.view.model):
            for step in progress(range(self.config.steps), "training a side memory"):
                losses: list[float] = []
                for batch in batches:
                    with torch.enable_grad():
                        loss = self._loss(batch, delta)
                        (gradient,) = torch.autograd.grad(loss, delta)
                    losses.append(float(loss.detach()))
                    delta.grad = gradient * mask
                    adam.step()
                    delta.data.clamp_(-self.config.clamp, self.config.clamp)
                _check_finite(losses, step)
                if max(losses) < self.config.stop_below:
                    break
        delta = delta.detach()
        return self._measured(memory.ids, delta, keys, torch.cat([b.outputs for b in batches]))

    def _generator(self, memory: _Memory) -> torch.Generator:
        """Return what draws a shard's mask: the same for as long as the shard is filled."""
        name = f"{self.config.seed} {memory.ids[0]}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)

    def _loss(self, batch: _Edits, delta: Tensor) -> Tensor:
        inside = gaps(batch.keys, batch.outputs, delta, self.activation)  # (B,)
        outside = gaps(*self.irrelevant, delta, self.activation)  # (N,)
        apart = inside[:, None] - outside[None]
        return (
            batch.loss(self.view, delta)
            + F.relu(outside - self.config.low).mean()
            + F.relu(self.config.high - inside).mean()
            + F.relu(self.config.margin - apart).mean()
        )

    def _measured(
        self, ids: tuple[str, ...], delta: Tensor, keys: Tensor, outputs: Tensor
    ) -> _Memory:
        least = float(gaps(keys, outputs, delta, self.activation).min())
        return _Memory(ids, delta, max(self.config.ratio * least, 1e-6))

    def all_merged(self, memories: list[_Memory], edits: dict[str, Edit]) -> list[_Memory]:
        """The memories, with full shards merged wherever they have the edits for it."""
        full = max(self.config.merge_every // self.config.shard_size, 1)
        found: list[_Memory] = []
        waiting: list[_Memory] = []
        for memory in memories:
            if len(memory.ids) != self.config.shard_size:
                found.append(memory)
                continue
            waiting.append(memory)
            if len(waiting) == full > 1:
                found.append(self._merged(waiting, edits))
                waiting = []
        return [
            *(m for m in found if len(m.ids) > self.config.shard_size),
            *waiting,
            *(m for m in found if len(m.ids) < self.config.shard_size),
        ]

    def _merged(self, memories: Sequence[_Memory], edits: dict[str, Edit]) -> _Memory:
        ids = tuple(id_ for memory in memories for id_ in memory.ids)
        delta = merged([memory.delta for memory in memories], self.config.kept)
        own = _Edits(self.view, self.tokenizer, [edits[id_] for id_ in ids], self.layer)
        return self._measured(ids, delta, own.keys, own.outputs)


class _Edits:
    """A batch of edits, captured from their prompts' last tokens on.

    Attributes:
        keys: (B, inner) float32, what the down-projection is given there.
        outputs: (B, width) float32, what it puts out.
    """

    def __init__(self, view: ModelView, tokenizer: Any, edits: Sequence[Edit], layer: int) -> None:
        rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
        starts = [len(row.ids) - len(row.targets) for row in rows]
        self.capture: BlockCapture = capture_blocks(view, [row.ids for row in rows], starts, layer)
        self.keys = self.capture.keys.float().cpu()
        self.outputs = self.capture.values.float().cpu()
        places = [
            (number, int(self.capture.at[number]) + step, token, 1 / (len(row.targets) * len(rows)))
            for number, row in enumerate(rows)
            for step, token in enumerate(row.targets)
        ]
        numbers, columns, tokens, weights = zip(*places, strict=True)
        self.places = torch.tensor(numbers), torch.tensor(columns)
        self.tokens, self.weights = torch.tensor(tokens), torch.tensor(weights)

    def loss(self, view: ModelView, delta: Tensor) -> Tensor:
        """Mean negative log-likelihood of the targets where the memory is used."""
        with changing(view.down_projection(self.capture.layer), delta):
            hidden = self.capture.run_blocks()  # (B, S, width)
        rows, columns = (each.to(hidden.device) for each in self.places)
        logits = view.logits(hidden[rows, columns])
        return target_nll(logits, self.tokens, self.weights).sum().float().cpu()


def _check_finite(losses: Sequence[float], step: int) -> None:
    if not all(torch.isfinite(torch.tensor(losses))):
        raise NumericalFailure(
            f"a loss is not finite in pass {step}, expected numbers: lower learning_rate, load "
            "the model in float32 or bfloat16, or check its weights"
        )
