"""The memory patch: edits kept beside the weights, and what is needed to answer by them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend._brief import size_text
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.patches._algebra import known_ids
from emend.patches._blast import BlastRadius
from emend.patches._outcomes import Outcome
from emend.patches._patch import Patch


@dataclass(frozen=True, eq=False, repr=False)
class MemoryPatch(Patch):
    """Edits next to the weights, of one method: a codebook, a side memory, prompts, routes.

    Each method that makes memories has a subclass of its own. The return annotation of the
    method's function names it, so that it is found when a patch is loaded.

    Attributes:
        edits: The edits that it was made for.
        method: Name of the method that made it.
        config: The method's settings, JSON-able.
        base: What :func:`~emend.patches.describe_base` says of the model it was made for;
            empty means any model.
        timing: Seconds and bytes that it took to make; see :class:`Patch`.
        tensors: What is remembered, by name.
        details: What else is remembered, JSON-able.
        outcomes: What became of each edit; see :class:`Patch`.
        blast: What else changed; see :class:`Patch`.
    """

    edits: tuple[Edit, ...] = ()
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    blast: BlastRadius | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", tuple(self.edits))
        object.__setattr__(self, "tensors", dict(self.tensors))
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NumericalFailure(
                    f"tensor {name} of the {self.method} patch is not finite: lower the learning "
                    "rate, or load the model in float32"
                )
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Whether tensors and details are what the kind needs.

        Raises:
            KeyError: One is missing.
            ValueError: One does not fit the others.
        """

    @abstractmethod
    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """The patch with some of its edits only, maybe none.

        Raises:
            InvalidInput: The edits cannot be told apart.
        """

    def _content(self) -> str:
        """See `Patch`: "beside the weights, 1.2 MB"."""
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        return f"beside the weights, {size_text(size)}"

    def without(self, *ids: str) -> MemoryPatch:
        """See :meth:`Patch.without`."""
        gone = set(known_ids(self, ids))
        return self._kept(edit for edit in self.edits if edit.id not in gone)

    def only(self, ids: str | Iterable[str]) -> MemoryPatch:
        """See :meth:`Patch.only`."""
        wanted = set(known_ids(self, [ids] if isinstance(ids, str) else ids))
        return self._kept(edit for edit in self.edits if edit.id in wanted)

    def to_go_on_from(self, ids: Iterable[str]) -> MemoryPatch:
        """Return the patch that a method goes on from when some edits are replaced by new ones.

        Where edits share what is remembered, so that `only` refuses, a kind may mark what has to
        be written again.

        Args:
            ids: Of the edits that stay.
        """
        return self.only(ids)

    def _kept(self, edits: Iterable[Edit]) -> MemoryPatch:
        kept = tuple(edits)
        return (
            self
            if kept == self.edits
            else replace(self.selected(kept), timing={}, outcomes=(), blast=None)
        )

    def save_pretrained(self, directory: str | Path) -> Path:
        """See :meth:`Patch.save_pretrained`."""
        from emend.patches._memory_file import save_memory

        return save_memory(self, Path(directory))

    def card(self) -> dict[str, Any]:
        """See :meth:`Patch.card`."""
        return {
            "kind": "memory",
            "method": self.method,
            "config": dict(self.config),
            "base": dict(self.base),
            "edits": [edit.id for edit in self.edits],
            "tensors": {name: list(tensor.shape) for name, tensor in self.tensors.items()},
            "bytes": sum(tensor.nbytes for tensor in self.tensors.values()),
            "timing": dict(self.timing),
            "outcomes": [one.to_dict() for one in self.outcomes],
            "blast": self.blast and self.blast.to_dict(),
        }
