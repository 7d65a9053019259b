"""The memory patch: edits stored next to the weights, and the tensors to answer with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from emend._brief import size_text
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.patches._patch import Patch
from emend.patches._save import save_memory_patch

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MemoryPatch(Patch):
    """Edits of one method next to the weights: a codebook, a side memory, prompts, routes.

    Each method that makes memories has a subclass of its own. The return annotation of the
    method's function names it, so that it is found when a patch is loaded.

    Attributes:
        tensors: The memory's tensors, by name.
        details: The memory's other data, JSON-able.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "memory"

    def __post_init__(self) -> None:
        super().__post_init__()
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
        """Check that tensors and details are complete and fit together.

        Raises:
            KeyError: One is missing.
            ValueError: One does not fit the others.
        """

    @abstractmethod
    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """Return the patch with some of its edits only, maybe none.

        Raises:
            InvalidInput: The edits cannot be separated.
        """

    def _content(self) -> str:
        """See `Patch`: "next to the weights, 1.2 MB"."""
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        return f"next to the weights, {size_text(size)}"

    def _selected(self, ids: set[str]) -> Self:
        """See `Patch`."""
        edits = tuple(edit for edit in self.edits if edit.id in ids)
        if edits == self.edits:
            return self
        selected = cast("Self", self.selected(edits))
        return replace(selected, timing={}, outcomes=(), blast=None)

    def to_go_on_from(self, ids: Iterable[str]) -> Self:
        """Return the patch that a method continues from when new edits replace some of its own.

        Where edits share the memory, so that `only` refuses, a kind may mark what has to be
        written again.

        Args:
            ids: Of the edits that stay.
        """
        return self.only(ids)

    def save_pretrained(self, directory: str | Path) -> Path:
        """See :meth:`Patch.save_pretrained`."""
        return save_memory_patch(self, Path(directory))

    def _card_content(self) -> dict[str, Any]:
        """See `Patch`."""
        return {
            "tensors": {name: list(tensor.shape) for name, tensor in self.tensors.items()},
            "bytes": sum(tensor.nbytes for tensor in self.tensors.values()),
        }
