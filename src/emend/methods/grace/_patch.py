"""A codebook at one down-projection (GRACE): keys, each with a radius and a value.

What the down-projection is given at a prompt's last token is compared with the keys. Where the
nearest is within its radius, the down-projection puts out that key's value instead: at this token,
at all of the prompt's, or until the target is said. Everything else is answered by the unedited
model, bit for bit.

The patch keeps of each edit its key, its label, its first radius and its value; the balls follow
from these in the order of the edits, so that an edit taken out leaves what the others alone make.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from emend.editing.entries import REPLACED, Replaced
from emend.edits import Edit
from emend.models import HookAttachment
from emend.models.passes import Batch
from emend.models.placing import device_of
from emend.models.wrapping import find_module
from emend.patches import MemoryPatch

GAP = 1e-5
"""By how much the older of two balls stays short of the half of their distance."""


@dataclass
class Ball:
    """An entry of a codebook.

    Attributes:
        owners: Numbers of the edits that it answers for; the first gave its key.
        radius: Keys within this distance are its own.
    """

    owners: list[int]
    radius: float

    @property
    def first(self) -> int:
        """The edit that gave its key."""
        return self.owners[0]


@dataclass
class Balls:
    """The balls of edits that came one after the other.

    Args:
        keys: (E, inner) float32, of the edits.
        labels: What each of them shall say, as tokens.
        radii: (E,), the first radius of each.
    """

    keys: Tensor
    labels: Sequence[Sequence[int]]
    radii: Sequence[float]
    all: list[Ball] = field(default_factory=list[Ball], init=False)

    def __post_init__(self) -> None:
        for number in range(len(self.labels)):
            self._add(number)

    def _add(self, number: int) -> None:
        """The published rule: a ball of its own, a part in a ball of its label, or a split.

        A split never makes a ball larger, as the published code may.
        """
        radius = self.radii[number]
        distance, near = self._nearest(number)
        if near is None or distance > radius + near.radius:
            self.all.append(Ball([number], radius))
        elif tuple(self.labels[near.first]) == tuple(self.labels[number]):
            near.radius = max(near.radius, distance)
            near.owners.append(number)
        else:
            near.radius = min(near.radius, distance / 2 - GAP)
            self.all.append(Ball([number], min(radius, distance / 2)))

    def _nearest(self, number: int) -> tuple[float, Ball | None]:
        if not self.all:
            return float("inf"), None
        keys = self.keys[[ball.first for ball in self.all]]
        distances = (keys - self.keys[number]).norm(dim=-1)
        place = int(distances.argmin())
        return float(distances[place]), self.all[place]


class CodebookPatch(MemoryPatch):
    """See the module.

    tensors: ``keys`` (E, inner), ``values`` (E, width), ``radii`` (E,), float32.
    details: ``module``, the down-projection's full name; ``labels``, E lists of tokens;
    ``replaced``, "query", "prompt" or "target".
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        counts = {len(self.tensors[name]) for name in ("keys", "values", "radii")}
        counts |= {len(self.details["labels"]), len(self.edits)}
        if len(counts) != 1:
            raise ValueError(f"the number of edits ({sorted(counts)})")
        if self.details["replaced"] not in REPLACED:
            raise ValueError(f"replaced ({self.details['replaced']!r})")
        str(self.details["module"])

    @cached_property
    def balls(self) -> list[Ball]:
        """The entries, in the order in which they came."""
        radii = self.tensors["radii"].tolist()
        return Balls(self.tensors["keys"].float(), self.details["labels"], radii).all

    def attachment(self, model: nn.Module) -> CodebookAttachment:
        """See `MemoryPatch.attachment`."""
        return CodebookAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """See `MemoryPatch.selected`."""
        wanted = {edit.id for edit in edits}
        places = [number for number, edit in enumerate(self.edits) if edit.id in wanted]
        tensors = {name: tensor[places] for name, tensor in self.tensors.items()}
        labels = [self.details["labels"][number] for number in places]
        return replace(
            self, edits=edits, tensors=tensors, details={**self.details, "labels": labels}
        )

    def card(self) -> dict[str, Any]:
        """See `Patch.card`."""
        radii = [ball.radius for ball in self.balls]
        return {
            **super().card(),
            "module": self.details["module"],
            "entries": len(radii),
            "radius": {"least": min(radii, default=None), "most": max(radii, default=None)},
        }


class CodebookAttachment(HookAttachment):
    """The hook of a codebook on its down-projection."""

    def __init__(self, patch: CodebookPatch, model: nn.Module) -> None:
        module = find_module(model, patch.details["module"])
        super().__init__(patch, model)
        place = device_of(module)
        firsts = [ball.first for ball in patch.balls]
        self.keys = patch.tensors["keys"][firsts].to(place, torch.float32)  # (K, inner)
        self.values = patch.tensors["values"][firsts].to(place)  # (K, width)
        self.radii = torch.tensor([ball.radius for ball in patch.balls], device=place)
        self.lengths = [len(patch.details["labels"][first]) for first in firsts]
        self.replaced: Replaced = patch.details["replaced"]
        self.needs_whole_prompts = self.replaced != "query"
        self._module = module

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        yield from super().hooks(model)
        yield self._module.register_forward_hook(self._replace)

    def _replace(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        batch = self.batch
        if batch is None or not len(self.keys):
            return None
        count = len(batch.ends)
        given = args[0].reshape(count, -1, args[0].shape[-1])
        found = self._found(batch, given)
        if not found:
            return None
        whole = output.reshape(count, -1, output.shape[-1]).clone()
        for row, entry in found.items():
            columns = self._columns(int(batch.ends[row]) - batch.start, entry)
            whole[row, columns] = self.values[entry].to(whole)
        return whole.reshape(output.shape)

    def _columns(self, end: int, entry: int) -> slice:
        """Of this pass, where an entry's value is put out; the prompt ends at column ``end``."""
        first = end if self.replaced == "query" else 0
        said = self.lengths[entry] if self.replaced == "target" else 1
        return slice(first, max(0, end + said))

    def _found(self, batch: Batch, given: Tensor) -> dict[int, int]:
        """By row, the entry whose value is put out in this pass."""
        rows, columns = batch.queries(given.shape[1])
        now: dict[int, int] = {}
        if len(rows):
            index = rows.to(given.device), columns.to(given.device)
            entries, hits = self._looked_up(given[index])
            asked = zip(rows.tolist(), entries.tolist(), hits.tolist(), strict=True)
            now = {row: entry for row, entry, hit in asked if hit}
        if self.replaced != "target":
            return now
        held: dict[int, int] = batch.kept.setdefault(self, {})
        held.update(now)
        return held

    def _looked_up(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """(N, inner) -> the nearest entry (N,), whether it holds (N,) bool."""
        # By differences: products would round away what tells two near keys apart.
        distances = torch.cdist(
            queries.float(), self.keys, compute_mode="donot_use_mm_for_euclid_dist"
        )
        found = distances.min(dim=1)
        return found.indices, found.values <= self.radii[found.indices]
