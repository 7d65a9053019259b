"""WISE: side memories of one late down-projection, used where they would move the activation far.

Wang et al. 2024, arXiv 2405.14768.

    Delta_act(x) = |sigma(W' k) - sigma(W k)|                                     eq. 2
    W' where Delta_act(x) > eps, else W                                           eq. 3
    L = -log p_W'(y | x) + max(0, Delta_act(x_i) - alpha) + max(0, beta - Delta_act(x_e))
        + max(0, gamma - (Delta_act(x_e) - Delta_act(x_i)))                       eq. 4
    W' <- W' - eta M_i * grad L         M_i: a random mask of part rho of the weights, of shard i
    W' <- W + TIES(D_1, ..., D_k)       D_i: the change of shard i                eq. 7

    paper                         here
    W, W'; main, side memory      a late down-projection; `SideMemory`: W' - W
    k                             its input at the prompt's last token
    Delta_act, activation gap     `activation_gaps`
    x_e, x_i                      the edits; texts that the model generates (`IRRELEVANT`)
    alpha, beta, gamma            ALPHA, BETA, GAMMA
    eps                           `ratio` times the least gap of a memory's edits
    rho; shards                   `density`; `shard_size`, `merge_every`

Deviations: a memory acts from the prompt's last token on and not on all tokens, so that one pass
over a prompt suffices and answers do not depend on other rows; the gap is computed at that token
and not averaged over all. The edits of a shard are trained together in batches, again and again,
and not one after the other, which forgets. The steps are Adam's, in parts of the weights' own
size: a plain step of 1.0, as published, is right for the model that it was chosen on and moves
nothing in another, whose last norm hides it. Every token of an irrelevant text counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, Part, Positive, Seed
from emend.editing.captured import CapturedEdits, prompt_keys, prompt_rows
from emend.editing.contexts import sample_templates
from emend.editing.keys import forward, watching
from emend.editing.session import Session
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._method import method
from emend.methods._training import backward
from emend.methods.wise._patch import SideMemory, SidePatch, activation_gaps, packed
from emend.methods.wise.ties import merged
from emend.models import ModelView, encode
from emend.models.forward import evaluating, text_config
from emend.models.hooks import changing, frozen
from emend.patches import MemoryPatch

LATE = 0.875
"""Depth of the layer, as a part of the layers."""
ALPHA, BETA, GAMMA = 5.0, 20.0, 10.0
"""Largest gap of irrelevant texts, least gap of edits, least difference of the two; published."""
CLAMP = 1.0
"""Bound on the change of each weight, as published."""
TIES_DENSITY = 0.53
"""Part of each shard's change, the largest, that merging keeps, as published."""
IRRELEVANT, LENGTH = 40, 12
"""Irrelevant texts, and the tokens of each."""
BATCH = 8
"""Edits in one step."""
ENOUGH = 0.02
"""A shard is done when the loss of each of its batches is below this."""


@dataclass(frozen=True)
class WiseConfig:
    """Settings of WISE."""

    layer: int | None = None
    """Layer whose down-projection has side memories; by default seven eighths up."""
    learning_rate: Positive = 0.1
    """Step size of Adam, in parts of the root mean square of the layer's weights."""
    steps: Count = 70
    """Passes over a shard's edits, at most."""
    density: Part = 0.2
    """Rho: part of the weights that a shard may change."""
    ratio: Positive = 0.88
    """A memory answers where the gap is larger than this part of its edits' least."""
    shard_size: Count = 500
    """Edits that share a mask."""
    merge_every: Count = 1000
    """Shards of this many edits together are merged to one memory."""
    seed: Seed = 0
    """Of masks and texts."""


@method(
    title="WISE: side memories of one late layer, used where they would change much",
    paper="Wang et al. 2024, arXiv 2405.14768",
    when="a long stream of edits with little harm elsewhere, at a cost that does not grow",
    avoid="taking one edit out alone; long streams on a small model",
    continues="append",
)
def wise(session: Session, config: WiseConfig) -> SidePatch:
    """Write edits into side memories."""
    view, edits = session.view, session.edits
    layer = session.layer_at(config.layer, LATE)
    module = view.name_of(view.down_projection(layer))
    before = _before(session.memory, module)
    everything = (*(before.edits if before else ()), *edits)
    memories = filled(
        before.memories if before else [], [edit.id for edit in edits], config.shard_size
    )
    training = _Training(view, session.tokenizer, layer, config, everything)
    memories = training.merge([training.written(memory) for memory in memories])
    tensors, details = packed(memories)
    details |= {"module": module, "activation": training.activation}
    return SidePatch(edits=everything, tensors=tensors, details=details, **session.record())


def _before(previous: MemoryPatch | None, module: str) -> SidePatch | None:
    if previous is None or not previous.edits:
        return None
    assert isinstance(previous, SidePatch)
    if previous.details["module"] != module:
        raise InvalidInput(
            f"the side memories are of {previous.details['module']}, expected {module}: go on "
            "with the layer that they were made at"
        )
    return previous


def filled(before: Sequence[SideMemory], ids: Sequence[str], size: int) -> list[SideMemory]:
    """Put edits into the last shard, where it has room, and into further ones.

    What stays of a memory that lost an edit is written again, as new edits are.
    """
    memories = [memory for memory in before if math.isfinite(memory.threshold)]
    lost = [memory for memory in before if not math.isfinite(memory.threshold)]
    rest = [*(id_ for memory in lost for id_ in memory.ids), *ids]
    if memories and len(memories[-1].ids) < size:
        last = memories.pop()
        room = size - len(last.ids)
        memories.append(SideMemory((*last.ids, *rest[:room]), last.delta))
        rest = rest[room:]
    starts = range(0, len(rest), size)
    return [*memories, *(SideMemory(tuple(rest[start : start + size])) for start in starts)]


class _Training:
    """Trains and merges the shards of one down-projection."""

    def __init__(
        self,
        view: ModelView,
        tokenizer: Any,
        layer: int,
        config: WiseConfig,
        edits: Sequence[Edit],
    ) -> None:
        self.view, self.layer, self.config = view, layer, config
        rows = prompt_rows(tokenizer, edits)
        self.rows = {edit.id: row for edit, row in zip(edits, rows, strict=True)}
        settings = text_config(view.model)
        names = (getattr(settings, n, None) for n in ("hidden_act", "activation_function"))
        self.activation = next((name for name in names if isinstance(name, str)), "linear")
        self.irrelevant = self._irrelevant(tokenizer)

    def _irrelevant(self, tokenizer: Any) -> tuple[Tensor, Tensor]:
        """Return keys (N, intermediate_size) and outputs (N, hidden_size) of irrelevant texts."""
        lengths = ((LENGTH, IRRELEVANT),)
        samples = sample_templates(
            self.view.model, tokenizer, seed=self.config.seed, lengths=lengths
        )
        batch = encode(tokenizer, [text.replace("{}", "") for text in samples[1:]])
        with watching(self.view, [self.layer]) as seen:
            forward(self.view, batch.input_ids, self.layer)
        real = batch.attention_mask.bool()
        keys, outputs = (
            each.reshape(*real.shape, -1)[real.to(each.device)].float().cpu()
            for each in seen[self.layer]
        )
        return keys, outputs

    def written(self, memory: SideMemory) -> SideMemory:
        """Train a shard by passes over its edits; one that is trained stays as it is."""
        if math.isfinite(memory.threshold):
            return memory
        view, rows = self.view, [self.rows[id_] for id_ in memory.ids]
        starts = range(0, len(rows), BATCH)
        batches = [CapturedEdits(view, rows[n : n + BATCH], self.layer) for n in starts]
        shape = view.hidden_size, view.intermediate_size(self.layer)
        scale = float(view.matrix(self.layer).detach().float().square().mean().sqrt())
        mask = torch.rand(shape, generator=self._generator(memory)) < self.config.density
        delta = memory.delta.expand(shape).clone().requires_grad_(True)
        adam = torch.optim.Adam([delta], lr=self.config.learning_rate * scale)
        with evaluating(view.model), frozen(view.model), torch.enable_grad():
            for _ in progress(range(self.config.steps), "training a side memory"):
                losses: list[float] = []
                for batch in batches:
                    losses.append(backward(adam, self._loss(batch, delta)))
                    assert delta.grad is not None
                    delta.grad.mul_(mask)
                    adam.step()
                    delta.data.clamp_(-CLAMP, CLAMP)
                if max(losses) < ENOUGH:
                    break
        keys = torch.cat([batch.keys for batch in batches])
        outputs = torch.cat([batch.outputs for batch in batches])
        return self._measured(memory.ids, delta.detach(), keys, outputs)

    def _generator(self, memory: SideMemory) -> torch.Generator:
        """Return what draws a shard's mask: the same for as long as the shard is filled."""
        name = f"{self.config.seed} {memory.ids[0]}".encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)

    def _loss(self, batch: CapturedEdits, delta: Tensor) -> Tensor:
        with changing(self.view.down_projection(self.layer), delta):
            nll = batch.losses().mean().float().cpu()
        edits = activation_gaps(batch.keys, batch.outputs, delta, self.activation)  # (B,)
        others = activation_gaps(*self.irrelevant, delta, self.activation)  # (N,)
        return (
            nll
            + F.relu(others - ALPHA).mean()
            + F.relu(BETA - edits).mean()
            + F.relu(GAMMA - (edits[:, None] - others[None])).mean()
        )

    def _measured(
        self, ids: tuple[str, ...], delta: Tensor, keys: Tensor, outputs: Tensor
    ) -> SideMemory:
        """Return a memory with its threshold."""
        least = float(activation_gaps(keys, outputs, delta, self.activation).min())
        return SideMemory(ids, delta, max(self.config.ratio * least, 1e-6))

    def merge(self, memories: Sequence[SideMemory]) -> list[SideMemory]:
        """Merge full shards wherever they have the edits for it: merged, full, others."""
        size = self.config.shard_size
        count = max(self.config.merge_every // size, 1)
        full = [memory for memory in memories if len(memory.ids) == size]
        ends = range(count, len(full) + 1, count) if count > 1 else ()
        return [
            *(memory for memory in memories if len(memory.ids) > size),
            *(self._merged(full[end - count : end]) for end in ends),
            *full[len(ends) * count :],
            *(memory for memory in memories if len(memory.ids) < size),
        ]

    def _merged(self, memories: Sequence[SideMemory]) -> SideMemory:
        ids = tuple(id_ for memory in memories for id_ in memory.ids)
        delta = merged([memory.delta for memory in memories], TIES_DENSITY)
        keys, outputs = prompt_keys(self.view, [self.rows[id_] for id_ in ids], self.layer)
        return self._measured(ids, delta, keys, outputs)
