"""The weight patch: changes of named weight matrices, which add like vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from emend._brief import count_text, size_text
from emend.errors import UnknownName
from emend.models.attachments import Attachment
from emend.models.hooks import plus_change
from emend.models.placing import at_least_float32, device_of, dtype_of
from emend.patches import _algebra
from emend.patches._base import find_modules
from emend.patches._export import Export, ExportOptions, export
from emend.patches._factors import Factor
from emend.patches._merge import merge_into, save_merged
from emend.patches._patch import Patch
from emend.patches._save import save_weight_patch
from emend.patches._serving import serving

if TYPE_CHECKING:
    from typing_extensions import Self


class WeightAttachment(Attachment):
    """A weight patch on a model: hooks that add ``x A^T B^T`` to the output of each module."""

    def __init__(self, patch: Patch, model: nn.Module, factors: Mapping[str, Factor]) -> None:
        super().__init__(patch)
        modules = find_modules(model, factors, patch.base)
        self._changes = [
            (modules[name], self._hook(modules[name], factor)) for name, factor in factors.items()
        ]

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        for module, add in self._changes:
            yield module.register_forward_hook(add)

    def _hook(self, module: nn.Module, factor: Factor) -> Any:
        device, dtype = device_of(module), at_least_float32(dtype_of(module))
        # Copies made in inference mode could not take part in a backward pass later.
        with torch.inference_mode(False):
            matrices = [matrix.to(device, dtype) for matrix in factor.matrices()]

        def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            return plus_change(args[0], output, matrices) if self.active else None

        return add


@dataclass(frozen=True, eq=False, repr=False)
class WeightPatch(Patch):
    """Changes of weight matrices by full module name; ``-p``, ``p + q``, ``p - q``, ``c * p``.

    A sum that would hold one edit twice, or edits that conflict, raises ``Conflict``.
    The model's weights are not changed: forward hooks add the change to each module's output.

    Attributes:
        factors: The change of each module, by its full dotted name.
        templates: The context templates that were used.
        statistics: A note on the key covariance that was used (corpus, count, dtype).
        state: Named tensors that the method needs to continue from this patch (target values,
            running statistics); a scaled or compressed patch has none.
        compression: Of a patch made by :meth:`compress`, the relative error of each module,
            ``||delta - delta'||_F / ||delta||_F``.
    """

    factors: Mapping[str, Factor]
    templates: tuple[str, ...] = field(default=(), kw_only=True)
    statistics: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    state: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    compression: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    kind: ClassVar[str] = "weight"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", dict(self.factors))
        object.__setattr__(self, "state", dict(self.state))
        object.__setattr__(self, "templates", tuple(self.templates))

    def _content(self) -> str:
        """See `Patch`: "4 layers, rank 20, 1.2 MB"."""
        if not self.factors:
            return "no change"
        layers = {part for name in self.factors for part in name.split(".") if part.isdigit()}
        where = count_text(len(layers), "layer")
        if len(layers) != len(self.factors):
            matrices = count_text(len(self.factors), "matrix", "matrices")
            where = f"{matrices} in {where}" if layers else matrices
        sizes = (each.nbytes for factor in self.factors.values() for each in factor.matrices())
        return f"{where}, rank {self.rank}, {size_text(sum(sizes))}"

    def attachment(self, model: nn.Module) -> WeightAttachment:
        """See :meth:`Patch.attachment`."""
        return WeightAttachment(self, model, self.factors)

    def delta(self, module_name: str) -> Tensor:
        """Return the change of one module's weight, (out, in) float32.

        Raises:
            UnknownName: The patch does not change that module.
        """
        if module_name not in self.factors:
            raise UnknownName("module", module_name, sorted(self.factors))
        return self.factors[module_name].dense()

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((factor.rank for factor in self.factors.values()), default=0)

    @property
    def norm(self) -> float:
        """Frobenius norm over all modules together."""
        return sum(factor.norm() ** 2 for factor in self.factors.values()) ** 0.5

    def _selected(self, ids: set[str]) -> Self:
        """See `Patch`."""
        return _algebra.selected(self, ids)

    def compress(self, rank: int | None = None, tolerance: float | None = None) -> Self:
        """Approximate each module's change with fewer rows, by QR and SVD in float64.

        The error is measured and stored in :attr:`compression`. Rows then belong to no edit, so
        that :meth:`without` can no longer separate several edits; a module whose rank would not
        fall is left as it is.

        Args:
            rank: The largest rank of a module.
            tolerance: The largest relative error of a module, ``||delta - delta'||_F /
                ||delta||_F``; the smallest rank within it is used. Errors below the resolution
                of float32 (1e-6) never count. With neither argument, the smallest lossless rank.

        Raises:
            InvalidInput: A module cannot satisfy both, or a bound makes no sense.
        """
        return _algebra.compressed(self, rank, tolerance)

    def merge_into(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """Write the patch into the model's own weights, for good: ``W <- cast(W + delta)``.

        The only function of emend that changes a model. Deltas are added in float32 and rounded
        once to the weights' dtype, or nothing is written at all. To get the base back, load it
        again: subtracting the patch does not restore it to the last bit. The model then has
        another hash, so that neither this patch nor another one for the base fits it any more.

        Args:
            model: The model that the patch was made for, with nothing attached.
            allow_other_base: Merge even if the model's weights are not those the patch was made
                for (its modules must still fit).

        Raises:
            InvalidInput: A patch is attached, the model is another, a weight is quantised,
                offloaded, or tied to one that the patch does not change.
            NumericalFailure: A weight would leave the range of its dtype.
        """
        merge_into(self, model, allow_other_base=allow_other_base)

    def save_merged(
        self,
        model: nn.Module,
        tokenizer: Any,
        directory: str | Path,
        *,
        allow_other_base: bool = False,
    ) -> Path:
        """Write the model with the patch in its weights as an ordinary Hugging Face checkpoint.

        For servers that load no adapters. The given model is not changed; memory holds its
        weights once, and those of the changed modules twice. ``emend_merged.json`` in the
        checkpoint records what it was made of.

        Args:
            model: The model that the patch was made for, with nothing attached.
            tokenizer: Its tokenizer, saved with it; None to leave it out.
            directory: New, empty, or such a checkpoint to be replaced, atomically.
            allow_other_base: As for :meth:`merge_into`.

        Returns:
            The directory.

        Raises:
            InvalidInput: As :meth:`merge_into`, or the directory holds something else.
            NumericalFailure: As :meth:`merge_into`.
        """
        return save_merged(
            self, model, tokenizer, Path(directory), allow_other_base=allow_other_base
        )

    def __neg__(self) -> WeightPatch:
        return self * -1.0

    def __mul__(self, scale: object) -> WeightPatch:
        if not isinstance(scale, (int, float)):
            return NotImplemented
        scaled = {name: factor.scaled(float(scale)) for name, factor in self.factors.items()}
        return replace(self, factors=scaled, state={}, outcomes=(), blast=None)

    __rmul__ = __mul__

    def __add__(self, other: object) -> WeightPatch:
        if not isinstance(other, WeightPatch):
            return NotImplemented
        _algebra.check_apart(self, other)
        return _algebra.added(self, other)

    def __sub__(self, other: object) -> WeightPatch:
        if not isinstance(other, WeightPatch):
            return NotImplemented
        return _algebra.added(self, -other)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write a PEFT LoRA adapter in canonical form, with emend's own data in ``emend.json``.

        Dense changes are stored as factors of the smallest rank with a relative error of at most
        1e-6; the measured error is stored too. See :meth:`Patch.save_pretrained`.
        """
        return save_weight_patch(self, Path(directory))

    def _exported(self, path: Path, options: ExportOptions) -> Export:
        """See :meth:`Patch.export`."""
        return export(self, path, options)

    def _card_content(self) -> dict[str, Any]:
        """See `Patch`."""
        return {
            "modules": {
                name: {"rank": factor.rank, "shape": list(factor.shape), "norm": factor.norm()}
                for name, factor in self.factors.items()
            },
            "templates": list(self.templates),
            "statistics": dict(self.statistics),
            "serving": [one.to_dict() for one in serving(self)],
            **({"compression": dict(self.compression)} if self.compression else {}),
        }
