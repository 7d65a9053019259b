"""Side memories of one down-projection (WISE): other weights, and when to use them.

Of each prompt's last token it is asked how far a side memory W + D_i would move the activation,

    gap_i(x) = |sigma((W + D_i) k) - sigma(W k)|

and from there on the memory with the largest gap for its threshold is used, or the unedited
weights, bit for bit, where no gap is over its threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import HookAttachment
from emend.models.hooks import plus_change
from emend.models.passes import Batch
from emend.models.placing import at_least_float32, device_of, dtype_of
from emend.models.wrapping import find_module
from emend.patches import MemoryPatch


def gaps(keys: Tensor, outputs: Tensor, delta: Tensor, activation: str) -> Tensor:
    """How far a side memory moves the activation.

    Args:
        keys: (N, inner), what the down-projection is given.
        outputs: (N, width), what its own weights put out.
        delta: (width, inner), how the side memory differs from them.
        activation: Name of sigma.

    Returns:
        (N,).
    """
    sigma: Callable[[Tensor], Tensor] = ACT2FN[activation]
    return (sigma(outputs + keys @ delta.T) - sigma(outputs)).norm(dim=-1)


class SidePatch(MemoryPatch):
    """See the module.

    tensors: ``delta.I`` (width, inner) float32 of memory I.
    details: ``module``, the down-projection's full name; ``memories``, for each the ids of its
    edits; ``thresholds``, of each; ``activation``, the name of sigma.
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        count = len(self.details["memories"])
        if len(self.details["thresholds"]) != count:
            raise ValueError(f"thresholds ({len(self.details['thresholds'])} of {count})")
        shapes = {tuple(self.tensors[f"delta.{number}"].shape) for number in range(count)}
        if len(shapes) > 1:
            raise ValueError(f"the shapes of memories ({sorted(shapes)})")
        ids = {id_ for owned in self.details["memories"] for id_ in owned}
        if ids != {edit.id for edit in self.edits}:
            raise ValueError("the edits of memories")
        for name in ("module", "activation"):
            str(self.details[name])

    def attachment(self, model: nn.Module) -> SideAttachment:
        """See `MemoryPatch.attachment`."""
        return SideAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """Whole memories only: the edits of one share its weights.

        Raises:
            InvalidInput: A memory would lose some of its edits and keep others.
        """
        wanted = {edit.id for edit in edits}
        kept: list[int] = []
        for number, owned in enumerate(self.details["memories"]):
            inside = wanted.intersection(owned)
            if inside and inside != set(owned):
                raise InvalidInput(
                    f"{len(owned)} edits share a side memory and cannot be told apart: make the "
                    "patch anew from the edits that shall stay"
                )
            kept += [number] if inside else []
        details = {
            **self.details,
            "memories": [self.details["memories"][number] for number in kept],
            "thresholds": [self.details["thresholds"][number] for number in kept],
        }
        tensors = {f"delta.{n}": self.tensors[f"delta.{old}"] for n, old in enumerate(kept)}
        return replace(self, edits=edits, tensors=tensors, details=details)

    def to_go_on_from(self, ids: Iterable[str]) -> SidePatch:
        """See `MemoryPatch.to_go_on_from`.

        A memory that loses some of its edits keeps the others by name alone: its change is zero
        and its threshold infinite, so that WISE writes them again.
        """
        stay = set(self.known_ids(ids))
        tensors, memories, thresholds = {}, [], []
        for number, owned in enumerate(self.details["memories"]):
            kept = [id_ for id_ in owned if id_ in stay]
            if not kept:
                continue
            delta, is_whole = self.tensors[f"delta.{number}"], len(kept) == len(owned)
            tensors[f"delta.{len(memories)}"] = delta if is_whole else torch.zeros_like(delta)
            thresholds.append(self.details["thresholds"][number] if is_whole else math.inf)
            memories.append(kept)
        details = {**self.details, "memories": memories, "thresholds": thresholds}
        edits = tuple(edit for edit in self.edits if edit.id in stay)
        return replace(self, edits=edits, tensors=tensors, details=details, timing={})

    def card(self) -> dict[str, Any]:
        """See `Patch.card`."""
        return {
            **super().card(),
            "module": self.details["module"],
            "memories": [len(owned) for owned in self.details["memories"]],
            "thresholds": list(self.details["thresholds"]),
        }


UNASKED, OWN = -2, -1
"""Of a row whose prompt was not read to its end yet, and of one that the model's own weights
answer; else the number of its memory."""


class SideAttachment(HookAttachment):
    """The hook of side memories on their down-projection."""

    def __init__(self, patch: SidePatch, model: nn.Module) -> None:
        module = find_module(model, patch.details["module"])
        super().__init__(patch, model)
        place = device_of(module)
        count = len(patch.details["memories"])
        dtype = at_least_float32(dtype_of(module))
        self.deltas = [patch.tensors[f"delta.{n}"].to(place, dtype) for n in range(count)]
        self.thresholds = torch.tensor(patch.details["thresholds"], device=place)
        self.activation = str(patch.details["activation"])
        self._module = module

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        yield from super().hooks(model)
        yield self._module.register_forward_hook(self._add)

    def _add(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        batch = self.batch
        if batch is None or not self.deltas:
            return None
        count = len(batch.ends)
        given = args[0].reshape(count, -1, args[0].shape[-1])
        own = output.reshape(count, -1, output.shape[-1])
        chosen = self._choose(batch, given, own)
        if int(chosen.max()) < 0:
            return None
        whole = own.clone()
        for row, memory in enumerate(chosen.tolist()):
            first = max(0, int(batch.ends[row]) - batch.start)
            if memory >= 0 and first < given.shape[1]:
                delta = self.deltas[memory]
                whole[row, first:] = plus_change(given[row, first:], own[row, first:], (delta,))
        return whole.reshape(output.shape)

    def _choose(self, batch: Batch, given: Tensor, own: Tensor) -> Tensor:
        """(B,) the memory of each row, found out where its prompt ends."""
        chosen: Tensor = batch.kept.setdefault(self, torch.full((len(batch.ends),), UNASKED))
        rows, columns = batch.queries(given.shape[1])
        if len(rows):
            index = rows.to(given.device), columns.to(given.device)
            found = torch.stack(
                [
                    gaps(given[index].to(delta), own[index].to(delta), delta, self.activation)
                    for delta in self.deltas
                ],
                dim=1,
            )  # (N, memories)
            best = (found / self.thresholds).max(dim=1)
            chosen[rows] = torch.where(best.values > 1, best.indices, OWN).cpu()
        return chosen
