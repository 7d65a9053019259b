"""GRACE: a codebook at one late layer, whose entries replace the layer's output.

Hartvigsen et al. 2023, arXiv 2211.11031.

    h'_l = v_i  if d(h, k_i) < eps_i with i = argmin_i d(h, k_i),  else  h_l(h)     eq. 1

    paper                 here
    codebook (k, v, eps)  `CodebookPatch`; `Entry`: a key's radius and the edits that share it
    h, k_i                keys: inputs of a down-projection at the prompt's last token
    v_i                   values: its output instead, found by Adam on the edits' targets
    eps_init              `epsilon`, as a part of the key's length
    y_i                   labels, the target's tokens
    add, expand, split    `codebook`

Deviations: labels are compared as sequences of tokens (the authors' code compares the mean of the
token ids, so that different targets of one mean count as the same). A split never makes a ball
larger. The entries follow from keys and labels alone, so that the values of all entries are
optimised together, one shared by several edits on all of them at once (the authors' code goes on
from the last edit only). A value begins at the layer's output at the prompt's last token and not
at random numbers. As published it replaces the output at all tokens of the prompt;
`replaced="query"` does so at the last one only, `"target"` until the target is generated (the
authors' code can do so at all tokens, which generates the target again and again). `epsilon` is a
part of the key's own length, for the published 1.0 means another radius in every model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor, nn

from emend._settings import Count, Positive
from emend.editing.captured import Replaced, optimise_values, prompt_keys, prompt_rows
from emend.editing.session import Session
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._method import method
from emend.methods._modules import ModuleAttachment
from emend.models.passes import Batch
from emend.models.placing import device_of
from emend.patches import MemoryPatch

LATE = 0.75
"""Depth of the layer, as a part of the layers."""
GAP = 1e-5
"""By how much the radius of the older of two keys is less than half of their distance."""


@dataclass(frozen=True)
class GraceConfig:
    """Settings of GRACE."""

    layer: int | None = None
    """Layer whose down-projection has the codebook; by default three quarters up."""
    epsilon: Positive = 0.3
    """Radius of a new entry, as a part of its key's length."""
    learning_rate: Positive = 1.0
    """Step size of Adam."""
    steps: Count = 100
    """Steps for the value of an entry, at most."""
    replaced: Replaced = "prompt"
    """Tokens whose output is replaced: all of the prompt's (prompt), its last one (query), or the
    target's too, until it is generated (target), which serves long targets best."""


@dataclass
class Entry:
    """An entry of a codebook.

    Attributes:
        owners: Numbers of the edits that it answers; the first gave its key.
        radius: Keys within this distance are its own.
    """

    owners: list[int]
    radius: float


def codebook(keys: Tensor, labels: Sequence[Sequence[int]], radii: Sequence[float]) -> list[Entry]:
    """Add edits one by one: an entry of its own, a part in one of its label, or a split.

    Args:
        keys: (E, intermediate_size) float32, of the edits.
        labels: Their targets' tokens.
        radii: (E,), the first radius of each.
    """
    entries: list[Entry] = []
    for number, radius in enumerate(radii):
        firsts = [entry.owners[0] for entry in entries]
        distances = (keys[firsts] - keys[number]).norm(dim=-1)
        place = int(distances.argmin()) if firsts else 0
        if not firsts or distances[place] > radius + entries[place].radius:
            entries.append(Entry([number], radius))
            continue
        near, distance = entries[place], float(distances[place])
        if tuple(labels[firsts[place]]) == tuple(labels[number]):
            near.radius = max(near.radius, distance)
            near.owners.append(number)
        else:
            near.radius = min(near.radius, distance / 2 - GAP)
            entries.append(Entry([number], min(radius, distance / 2)))
    return entries


class CodebookPatch(MemoryPatch):
    """A codebook; its entries follow from the edits' keys, labels and first radii in their order.

    tensors: ``keys`` (E, intermediate_size), ``values`` (E, hidden_size), ``radii`` (E,), float32.
    details: ``module``, the down-projection's full name; ``labels``, E lists of tokens;
    ``replaced``, as the setting.
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        counts = {len(self.tensors[name]) for name in ("keys", "values", "radii")}
        counts |= {len(self.details["labels"]), len(self.edits)}
        if len(counts) != 1:
            raise ValueError(f"the number of edits ({sorted(counts)})")
        if self.details["replaced"] not in get_args(Replaced):
            raise ValueError(f"replaced ({self.details['replaced']!r})")
        str(self.details["module"])

    @cached_property
    def entries(self) -> list[Entry]:
        """The entries, in the order in which they came."""
        radii = self.tensors["radii"].tolist()
        return codebook(self.tensors["keys"].float(), self.details["labels"], radii)

    def attachment(self, model: nn.Module) -> CodebookAttachment:
        """See `MemoryPatch.attachment`."""
        return CodebookAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """See `MemoryPatch.selected`."""
        wanted = {edit.id for edit in edits}
        places = [number for number, edit in enumerate(self.edits) if edit.id in wanted]
        tensors = {name: tensor[places] for name, tensor in self.tensors.items()}
        details = {**self.details, "labels": [self.details["labels"][n] for n in places]}
        return dataclasses.replace(self, edits=edits, tensors=tensors, details=details)

    def card(self) -> dict[str, Any]:
        """See `Patch.card`."""
        radii = [entry.radius for entry in self.entries]
        radius = {"least": min(radii, default=None), "most": max(radii, default=None)}
        module = self.details["module"]
        return {**super().card(), "module": module, "entries": len(radii), "radius": radius}


class CodebookAttachment(ModuleAttachment):
    """Replaces the output of a down-projection where a prompt's key is within an entry's radius."""

    def __init__(self, patch: CodebookPatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        place = device_of(self.module)
        firsts = [entry.owners[0] for entry in patch.entries]
        self.keys = patch.tensors["keys"][firsts].to(place, torch.float32)  # (K, intermediate_size)
        self.values = patch.tensors["values"][firsts].to(place)  # (K, hidden_size)
        self.radii = torch.tensor([entry.radius for entry in patch.entries], device=place)
        self.lengths = [len(patch.details["labels"][first]) for first in firsts]
        self.replaced: Replaced = patch.details["replaced"]
        self.needs_whole_prompts = self.replaced != "query"

    def changed(self, batch: Batch, given: Tensor, output: Tensor) -> Tensor | None:
        """See `ModuleAttachment.changed`."""
        found = self._found(batch, given)
        if not found:
            return None
        whole = output.clone()
        for row, entry in found.items():
            end = int(batch.ends[row]) - batch.start
            first = end if self.replaced == "query" else 0
            after = self.lengths[entry] if self.replaced == "target" else 1
            whole[row, first : max(0, end + after)] = self.values[entry].to(whole)
        return whole

    def _found(self, batch: Batch, given: Tensor) -> dict[int, int]:
        """Return by row the entry whose value replaces the output in this pass."""
        rows, columns = batch.queries(given.shape[1])
        now: dict[int, int] = {}
        if len(rows) and len(self.keys):
            queries = given[rows.to(given.device), columns.to(given.device)].float()
            # By differences: products would round away what distinguishes two near keys.
            exact = "donot_use_mm_for_euclid_dist"
            distances, entries = torch.cdist(queries, self.keys, compute_mode=exact).min(dim=1)
            hits = (distances <= self.radii[entries]).tolist()
            asked = zip(rows.tolist(), entries.tolist(), hits, strict=True)
            now = {row: entry for row, entry, hit in asked if hit}
        if self.replaced != "target":
            return now
        held: dict[int, int] = batch.kept.setdefault(self, {})
        held.update(now)
        return held


@method(
    title="GRACE: a codebook of keys and values at one late layer",
    paper="Hartvigsen et al. 2023, arXiv 2211.11031",
    when="many edits one by one that must disturb nothing else; some rewordings are missed",
    avoid="cases where rewordings must be answered, or the patch served by llama.cpp, PEFT or vLLM",
    continues="append",
)
def grace(session: Session, config: GraceConfig) -> CodebookPatch:
    """Add edits to a codebook."""
    view, edits = session.view, session.edits
    layer = session.layer_at(config.layer, LATE)
    details: dict[str, Any] = {"module": view.name_of(view.down_projection(layer))}
    details["replaced"] = config.replaced
    before = _checked(session.memory, details)
    everything = (*(before.edits if before else ()), *edits)
    rows = prompt_rows(session.tokenizer, everything)
    details["labels"] = [list(row.targets) for row in rows]
    old = len(everything) - len(edits)
    keys, values = prompt_keys(view, rows[old:], layer)
    radii = config.epsilon * keys.norm(dim=-1)
    tensors = {"keys": keys, "values": values, "radii": radii}
    if before is not None:
        tensors = {name: torch.cat([before.tensors[name], tensors[name]]) for name in tensors}
    entries = codebook(tensors["keys"], details["labels"], tensors["radii"].tolist())
    changed = [entry.owners for entry in entries if max(entry.owners) >= old]
    steps, rate = config.steps, config.learning_rate
    optimise_values(view, layer, rows, changed, tensors["values"], config.replaced, steps, rate)
    return CodebookPatch(edits=everything, tensors=tensors, details=details, **session.record())


def _checked(previous: MemoryPatch | None, details: dict[str, Any]) -> CodebookPatch | None:
    """Return the codebook to go on from.

    Raises:
        InvalidInput: It is at another layer, or replaces the output of other tokens.
    """
    if previous is None:
        return None
    assert isinstance(previous, CodebookPatch)
    found = {name: previous.details[name] for name in details}
    if found != details:
        raise InvalidInput(
            f"the codebook is at {found['module']} and replaces the {found['replaced']}, expected "
            f"{details['module']} and the {details['replaced']}: go on with the settings that it "
            "was made with"
        )
    return previous
