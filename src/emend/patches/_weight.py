"""The weight patch: changes of named weight matrices, which add like vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from emend import models
from emend.edits import Edit
from emend.errors import InvalidInput, UnknownName
from emend.patches import _algebra
from emend.patches._base import check_base
from emend.patches._factors import Factor
from emend.patches._hooks import WeightAttachment
from emend.patches._patch import Patch


@dataclass(frozen=True, eq=False)
class WeightPatch(Patch):
    """Changes of weight matrices by full module name; ``-p``, ``p + q``, ``p - q``, ``c * p``.

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
            sought, running statistics); a scaled patch has none.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", dict(self.factors))
        object.__setattr__(self, "state", dict(self.state))
        object.__setattr__(self, "edits", tuple(self.edits))
        object.__setattr__(self, "templates", tuple(self.templates))

    def attach(self, model: nn.Module, *, allow_other_base: bool = False) -> None:
        """See :meth:`Patch.attach`."""
        if self._attachment(model) is not None:
            raise InvalidInput(
                "the patch is attached to this model already: detach it first "
                "(2 * patch doubles an edit)"
            )
        check_base(model, self.base, allow_other_base=allow_other_base)
        models.attach(model, WeightAttachment(self, model, self.factors))

    def detach(self, model: nn.Module) -> None:
        """See :meth:`Patch.detach`."""
        attachment = self._attachment(model)
        if attachment is None:
            raise InvalidInput("the patch is not attached to this model: attach it first")
        attachment.remove()
        models.detach(model, attachment)

    def _attachment(self, model: nn.Module) -> WeightAttachment | None:
        for attachment in models.attachments(model):
            if isinstance(attachment, WeightAttachment) and attachment.patch is self:
                return attachment
        return None

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

    def __neg__(self) -> WeightPatch:
        return self * -1.0

    def __mul__(self, scale: object) -> WeightPatch:
        if not isinstance(scale, (int, float)):
            return NotImplemented
        scaled = {name: factor.scaled(float(scale)) for name, factor in self.factors.items()}
        return replace(self, factors=scaled, state={})

    __rmul__ = __mul__

    def __add__(self, other: object) -> WeightPatch:
        if not isinstance(other, WeightPatch):
            return NotImplemented
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
        }
