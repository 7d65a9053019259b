"""The weight patch: changes of named weight matrices, which add like vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from emend._brief import count_text, size_text
from emend.edits import Edit
from emend.errors import UnknownName
from emend.patches import _algebra
from emend.patches._blast import BlastRadius
from emend.patches._factors import Factor
from emend.patches._hooks import WeightAttachment
from emend.patches._outcomes import Outcome
from emend.patches._patch import Patch
from emend.patches._serving import serving

if TYPE_CHECKING:
    from emend.patches._export import Export, ExportOptions


@dataclass(frozen=True, eq=False, repr=False)
class WeightPatch(Patch):
    """Changes of weight matrices by full module name; ``-p``, ``p + q``, ``p - q``, ``c * p``.

    A sum that would hold one edit twice, or edits that conflict, raises ``Conflict``.
    The weights are never touched: hooks add ``x A^T B^T`` to what each module puts out.

    Attributes:
        factors: The change of each module, by its full dotted name.
        edits: The edits that it was made for.
        method: Name of the method that made it.
        config: The method's settings, JSON-able.
        base: What :func:`~emend.patches.describe_base` says of the model it was made for;
            empty means any model whose modules fit.
        templates: The context templates that were used.
        statistics: A note on the second moments that were used (corpus, count, dtype).
        timing: Seconds and bytes that it took to make; see :class:`Patch`.
        state: Named tensors that the method needs to go on from this patch (the values it
            sought, running statistics); a scaled or compressed patch has none.
        compression: Where :meth:`compress` made the patch, the relative error that it cost each
            module, ``||delta - delta'||_F / ||delta||_F``.
        outcomes: What became of each edit; see :class:`Patch`.
        blast: What else changed; see :class:`Patch`.
    """

    factors: Mapping[str, Factor]
    edits: tuple[Edit, ...] = ()
    method: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    compression: Mapping[str, float] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    blast: BlastRadius | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", dict(self.factors))
        object.__setattr__(self, "state", dict(self.state))
        object.__setattr__(self, "edits", tuple(self.edits))
        object.__setattr__(self, "templates", tuple(self.templates))

    def _content(self) -> str:
        """See `Patch`: "4 layers, rank 20, 1.2 MB"."""
        if not self.factors:
            return "no change"
        blocks = {part for name in self.factors for part in name.split(".") if part.isdigit()}
        where = count_text(len(blocks), "layer")
        if len(blocks) != len(self.factors):
            matrices = count_text(len(self.factors), "matrix", "matrices")
            where = f"{matrices} in {where}" if blocks else matrices
        held = (each.nbytes for factor in self.factors.values() for each in factor.matrices())
        return f"{where}, rank {self.rank}, {size_text(sum(held))}"

    def attachment(self, model: nn.Module) -> WeightAttachment:
        """See :meth:`Patch.attachment`."""
        return WeightAttachment(self, model, self.factors)

    def delta(self, module_name: str) -> Tensor:
        """The change of one module's weight, (out, in) float32.

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

    def without(self, *ids: str) -> WeightPatch:
        """The patch with the named edits taken out.

        Raises:
            UnknownName: An id is not among the patch's edits.
            InvalidInput: The edits share their rows and cannot be told apart.
        """
        gone = set(_algebra.known_ids(self, ids))
        return _algebra.selected(self, [e.id for e in self.edits if e.id not in gone])

    def only(self, ids: str | Iterable[str]) -> WeightPatch:
        """The patch with the named edits alone; raises as :meth:`without`."""
        wanted = [ids] if isinstance(ids, str) else list(ids)
        return _algebra.selected(self, _algebra.known_ids(self, wanted))

    def compress(self, rank: int | None = None, tolerance: float | None = None) -> WeightPatch:
        """The patch in fewer rows: each module's best approximation, by QR and SVD in float64.

        What it costs is measured and kept in :attr:`compression`. Rows then belong to no edit, so
        that :meth:`without` cannot take one out any more (of several edits); a module that would
        need as many rows as it has is left as it is.

        Args:
            rank: The most rows that a module may have.
            tolerance: The largest relative error of a module, ``||delta - delta'||_F /
                ||delta||_F``; the fewest rows that keep to it are taken. What float32 cannot hold
                (1e-6) never counts. With neither, as few rows as lose nothing.

        Raises:
            InvalidInput: A module cannot keep to both, or a bound makes no sense.
        """
        return _algebra.compressed(self, rank, tolerance)

    def merge_into(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """Write the patch into the model's own weights, for good: ``W <- cast(W + delta)``.

        The only thing in emend that changes a model. Deltas are added in float32 and rounded once
        to the weights' dtype, or nothing is written at all. To get the base back, load it again:
        subtracting the patch does not give it back to the last bit. The model then has another
        hash, so that neither this patch nor another one for the base fits it any more.

        Args:
            model: The model that the patch was made for, with nothing attached.
            allow_other_base: Merge although the model's weights are not those the patch was made
                for (its modules must still fit).

        Raises:
            InvalidInput: A patch is attached, the model is another, a weight is quantised,
                offloaded, or tied to one that the patch does not change.
            NumericalFailure: A weight would leave the range of its dtype.
        """
        from emend.patches._merge import merge_into

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

        For servers that load no adapters. The given model stays as it is; its weights are in
        memory once, and those of the changed modules twice. Beside the checkpoint's own files
        stands ``emend_merged.json``, which says of what it was made.

        Args:
            model: The model that the patch was made for, with nothing attached.
            tokenizer: Its tokenizer, saved beside it; None to leave it out.
            directory: New, empty, or such a checkpoint to be replaced; written aside and renamed.
            allow_other_base: As for :meth:`merge_into`.

        Returns:
            The directory.

        Raises:
            InvalidInput: As :meth:`merge_into`, or the directory holds something else.
            NumericalFailure: As :meth:`merge_into`.
        """
        from emend.patches._merge import save_merged

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
        """Write a PEFT LoRA adapter in canonical form, with our own data in ``emend.json``.

        Dense changes are stored as factors of the rank that keeps them to 1e-6 (relative);
        the measured error is written beside them. See :meth:`Patch.save_pretrained`.
        """
        from emend.patches._save import save_weight_patch

        return save_weight_patch(self, Path(directory))

    def _exported(self, path: Path, options: ExportOptions) -> Export:
        """See :meth:`Patch.export`."""
        from emend.patches._export import export

        return export(self, path, options)

    def card(self) -> dict[str, Any]:
        """See :meth:`Patch.card`."""
        return {
            "kind": "weight",
            "method": self.method,
            "config": dict(self.config),
            "base": dict(self.base),
            "edits": [edit.id for edit in self.edits],
            "modules": {
                name: {"rank": factor.rank, "shape": list(factor.shape), "norm": factor.norm()}
                for name, factor in self.factors.items()
            },
            "templates": list(self.templates),
            "statistics": dict(self.statistics),
            "timing": dict(self.timing),
            "serving": [one.to_dict() for one in serving(self)],
            **({"compression": dict(self.compression)} if self.compression else {}),
            "outcomes": [one.to_dict() for one in self.outcomes],
            "blast": self.blast and self.blast.to_dict(),
        }
