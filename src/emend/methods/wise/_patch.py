"""WISE's side memories: other weights of one down-projection, and when they answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._modules import ModuleAttachment
from emend.models.hooks import plus_change
from emend.models.passes import Batch
from emend.models.placing import at_least_float32, device_of, dtype_of
from emend.patches import MemoryPatch

UNASKED, OWN = -2, -1
"""Of a row whose prompt is not complete yet, and of one that the model's own weights answer; else
the number of its memory."""


def activation_gaps(keys: Tensor, outputs: Tensor, delta: Tensor, activation: str) -> Tensor:
    """Return (N,), how far a side memory moves the activation.

    Args:
        keys: (N, intermediate_size), inputs of the down-projection.
        outputs: (N, hidden_size), its outputs with the main memory.
        delta: (hidden_size, intermediate_size), the side memory less the main memory.
        activation: Name of sigma.
    """
    sigma: Callable[[Tensor], Tensor] = ACT2FN[activation]
    return (sigma(outputs + keys @ delta.T) - sigma(outputs)).norm(dim=-1)


@dataclass(frozen=True)
class SideMemory:
    """A knowledge shard, or shards that were merged.

    Attributes:
        ids: Its edits.
        delta: (hidden_size, intermediate_size), its difference from the main memory; where it was
            not trained yet, one zero.
        threshold: The activation gap above which it answers; infinite where it is to be trained.
    """

    ids: tuple[str, ...]
    delta: Tensor = field(default_factory=lambda: torch.zeros(1, 1))
    threshold: float = math.inf


def packed(memories: Sequence[SideMemory]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and details of a `SidePatch` that has some memories."""
    tensors = {f"delta.{number}": memory.delta for number, memory in enumerate(memories)}
    details: dict[str, Any] = {
        "memories": [list(memory.ids) for memory in memories],
        "thresholds": [memory.threshold for memory in memories],
    }
    return tensors, details


class SidePatch(MemoryPatch):
    """Side memories of one down-projection.

    tensors: ``delta.I`` (hidden_size, intermediate_size) float32 of memory I.
    details: ``module``, the down-projection's full name; ``memories``, for each the ids of its
    edits; ``thresholds``, of each; ``activation``, the name of sigma.
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        memories = self.memories
        shapes = {tuple(memory.delta.shape) for memory in memories}
        if len(shapes) > 1:
            raise ValueError(f"the shapes of memories ({sorted(shapes)})")
        if {id_ for memory in memories for id_ in memory.ids} != {edit.id for edit in self.edits}:
            raise ValueError("the edits of memories")
        for name in ("module", "activation"):
            str(self.details[name])

    @property
    def memories(self) -> list[SideMemory]:
        """The side memories."""
        both = zip(self.details["memories"], self.details["thresholds"], strict=True)
        return [
            SideMemory(tuple(ids), self.tensors[f"delta.{number}"], threshold)
            for number, (ids, threshold) in enumerate(both)
        ]

    def attachment(self, model: nn.Module) -> SideAttachment:
        """See `MemoryPatch.attachment`."""
        return SideAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """Return the patch with some memories only: the edits of one share its weights.

        Raises:
            InvalidInput: A memory would lose some of its edits and keep others.
        """
        wanted = {edit.id for edit in edits}
        for memory in self.memories:
            if 0 < len(wanted.intersection(memory.ids)) < len(memory.ids):
                raise InvalidInput(
                    f"{len(memory.ids)} edits share a side memory and cannot be separated: make "
                    "the patch anew from the edits that stay"
                )
        return self._with([one for one in self.memories if wanted.intersection(one.ids)], edits)

    def to_go_on_from(self, ids: Iterable[str]) -> SidePatch:
        """See `MemoryPatch.to_go_on_from`; a memory that loses some of its edits is marked."""
        stay = set(self.known_ids(ids))
        memories: list[SideMemory] = []
        for memory in self.memories:
            left = tuple(id_ for id_ in memory.ids if id_ in stay)
            if len(left) == len(memory.ids):
                memories.append(memory)
            elif left:
                memories.append(SideMemory(left, torch.zeros_like(memory.delta)))
        return self._with(memories, tuple(edit for edit in self.edits if edit.id in stay))

    def _with(self, memories: Sequence[SideMemory], edits: tuple[Edit, ...]) -> SidePatch:
        tensors, details = packed(memories)
        details = {**self.details, **details}
        return replace(self, edits=edits, tensors=tensors, details=details, timing={})

    def card(self) -> dict[str, Any]:
        """See `Patch.card`."""
        own: Mapping[str, Any] = {
            "module": self.details["module"],
            "memories": [len(memory.ids) for memory in self.memories],
            "thresholds": list(self.details["thresholds"]),
        }
        return {**super().card(), **own}


class SideAttachment(ModuleAttachment):
    """Routes prompts to side memories of a down-projection, or to its own weights."""

    def __init__(self, patch: SidePatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        place, dtype = device_of(self.module), at_least_float32(dtype_of(self.module))
        self.deltas = [memory.delta.to(place, dtype) for memory in patch.memories]
        self.thresholds = torch.tensor(patch.details["thresholds"], device=place)
        self.activation = str(patch.details["activation"])

    def changed(self, batch: Batch, given: Tensor, output: Tensor) -> Tensor | None:
        """See `ModuleAttachment.changed`."""
        if not self.deltas:
            return None
        chosen = self._choose(batch, given, output)
        if int(chosen.max()) < 0:
            return None
        whole = output.clone()
        for row, memory in enumerate(chosen.tolist()):
            first = max(0, int(batch.ends[row]) - batch.start)
            if memory >= 0 and first < given.shape[1]:
                tokens = row, slice(first, None)
                whole[tokens] = plus_change(given[tokens], output[tokens], (self.deltas[memory],))
        return whole

    def _choose(self, batch: Batch, given: Tensor, output: Tensor) -> Tensor:
        """Return (B,) the memory of each row, chosen where its prompt ends."""
        chosen: Tensor = batch.kept.setdefault(self, torch.full((len(batch.ends),), UNASKED))
        rows, columns = batch.queries(given.shape[1])
        if len(rows):
            index = rows.to(given.device), columns.to(given.device)
            gaps = [
                activation_gaps(given[index].to(delta), output[index].to(delta), delta, sigma)
                for delta, sigma in ((one, self.activation) for one in self.deltas)
            ]
            best = (torch.stack(gaps, dim=1) / self.thresholds).max(dim=1)  # of (N, memories)
            chosen[rows] = torch.where(best.values > 1, best.indices, OWN).cpu()
        return chosen
