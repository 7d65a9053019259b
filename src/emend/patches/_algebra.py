"""Algebra of weight patches: sums, the part that belongs to some edits, compression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from emend.edits import conflict, conflicting
from emend.errors import InvalidInput
from emend.patches._base import base_difference
from emend.patches._factors import Factor, LowRank, add, compress

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

W = TypeVar("W", bound="WeightPatch")

LOSSLESS = 1e-6
"""Relative error that still counts as lossless: a few roundings of float32."""


def added(left: WeightPatch, right: WeightPatch) -> WeightPatch:
    """Add two patches of one model as vectors by concatenating factors, whatever their edits.

    Raises:
        InvalidInput: They were made for models that differ in weights, configuration or shape.
    """
    difference = base_difference(left.base, right.base)
    if difference is not None:
        raise InvalidInput(
            f"patches for models with {difference[0]} and with {difference[1]} cannot be added: "
            "both must be for the same model"
        )
    left, right = _owned(left), _owned(right)
    factors: dict[str, Factor] = dict(left.factors)
    for name, factor in right.factors.items():
        factors[name] = add(factors[name], factor) if name in factors else factor
    edits = {edit.id: edit for edit in (*right.edits, *left.edits)}
    order = dict.fromkeys(edit.id for edit in (*left.edits, *right.edits))
    methods = dict.fromkeys(name for name in (left.method, right.method) if name)
    return replace(
        left,
        factors=factors,
        edits=tuple(edits[id_] for id_ in order),
        method=" + ".join(methods),
        config=left.config if left.config == right.config else {},
        base=left.base or right.base,
        templates=tuple(dict.fromkeys((*left.templates, *right.templates))),
        statistics=left.statistics if left.statistics == right.statistics else {},
        timing={},
        state={**left.state, **right.state},
        compression={},
        outcomes=(),
        blast=None,
    )


def check_apart(left: WeightPatch, right: WeightPatch) -> None:
    """Refuse to add patches that share an edit, or whose edits conflict.

    Raises:
        Conflict: The sum would write an edit twice, or two targets over each other.
    """
    remedy = "take them out of one (without), or use -, or a number times one patch, as vectors do"
    ids = {edit.id: edit for edit in left.edits}
    shared = [(ids[edit.id], edit) for edit in right.edits if edit.id in ids]
    if shared:
        raise conflict(shared, remedy, "edits are in both patches, expected each in one")
    pairs = conflicting((*left.edits, *right.edits))
    across = [(old, new) for old, new in pairs if (old.id in ids) != (new.id in ids)]
    if across:
        raise conflict(across, remedy)


def selected(patch: W, ids: set[str]) -> W:
    """Return the part of a patch that belongs to the named edits.

    Raises:
        InvalidInput: The edits share their rows and cannot be separated.
    """
    if ids == {edit.id for edit in patch.edits}:
        return patch
    factors = {name: _part(name, f, ids) for name, f in _owned(patch).factors.items()}
    edits = tuple(edit for edit in patch.edits if edit.id in ids)
    return replace(patch, factors=factors, edits=edits, timing={}, outcomes=(), blast=None)


def compressed(patch: W, rank: int | None, tolerance: float | None) -> W:
    """Return the patch with fewer rows per module; see :meth:`WeightPatch.compress`.

    Raises:
        InvalidInput: A module cannot keep to both bounds, or one of them makes no sense.
    """
    if rank is not None and (isinstance(rank, bool) or rank < 1):
        raise InvalidInput(f"rank is {rank}, expected at least 1: the number of rows to keep")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InvalidInput(
            f"tolerance is {tolerance}, expected a relative error from 0 to below 1, such as 0.01"
        )
    bound = max(tolerance or 0.0, LOSSLESS)
    factors: dict[str, Factor] = {}
    errors: dict[str, float] = {}
    for name, factor in patch.factors.items():
        small, error = compress(factor, bound, rank)
        if tolerance is not None and error > bound:
            raise InvalidInput(
                f"{name} in {small.rank} rows has a relative error of {error:.2g}, expected at "
                f"most tolerance={tolerance:g}: allow a higher rank or a larger tolerance"
            )
        # At the same rank nothing is gained, and the attribution of rows to edits is lost.
        unchanged = isinstance(factor, LowRank) and small.rank >= factor.rank
        factors[name], errors[name] = (factor, 0.0) if unchanged else (small, error)
    return replace(
        patch, factors=factors, compression=errors, timing={}, state={}, outcomes=(), blast=None
    )


def _part(name: str, factor: Factor, wanted: set[str]) -> LowRank:
    if not isinstance(factor, LowRank) or factor.columns is None:
        raise InvalidInput(
            f"the change of {name} is shared by all edits of the patch, expected rows of each "
            "edit's own: build the patch again from the edits to keep"
        )
    return factor.rows([i for i, owner in enumerate(factor.columns) if owner in wanted])


def _owned(patch: W) -> W:
    """Return the patch with all rows attributed to its edit, if it has only one."""
    if len(patch.edits) != 1:
        return patch
    owner = patch.edits[0].id
    factors: dict[str, Factor] = {
        name: LowRank(f.A, f.B, (owner,) * f.rank)
        if isinstance(f, LowRank) and f.columns is None
        else f
        for name, f in patch.factors.items()
    }
    return replace(patch, factors=factors)
