"""What patches do as vectors: their sum, and the part of it that belongs to some edits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from emend.errors import InvalidInput, UnknownName
from emend.patches._factors import Factor, LowRank, add

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch


def added(left: WeightPatch, right: WeightPatch) -> WeightPatch:
    """The sum of two patches of one model, by concatenation of their factors.

    Raises:
        InvalidInput: The patches were made for models with other weights or shapes.
    """
    hashes = (left.base.get("hash"), right.base.get("hash"))
    if all(hashes) and hashes[0] != hashes[1]:
        raise InvalidInput(
            f"patches for models with hashes {hashes[0]} and {hashes[1]} cannot be added: "
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
    )


def known_ids(patch: WeightPatch, ids: Iterable[str]) -> list[str]:
    """``ids``, checked to be among the patch's edits.

    Raises:
        UnknownName: One is not.
    """
    known = [edit.id for edit in patch.edits]
    wanted = list(dict.fromkeys(ids))
    for id_ in wanted:
        if id_ not in known:
            raise UnknownName("edit", id_, known)
    return wanted


def selected(patch: WeightPatch, ids: Iterable[str]) -> WeightPatch:
    """The part of a patch that belongs to the named edits.

    Raises:
        InvalidInput: The edits share their rows and cannot be told apart.
    """
    wanted = set(ids)
    if wanted == {edit.id for edit in patch.edits}:
        return patch
    factors = {name: _part(name, f, wanted) for name, f in _owned(patch).factors.items()}
    edits = tuple(edit for edit in patch.edits if edit.id in wanted)
    return replace(patch, factors=factors, edits=edits, timing={})


def _part(name: str, factor: Factor, wanted: set[str]) -> LowRank:
    if not isinstance(factor, LowRank) or factor.columns is None:
        raise InvalidInput(
            f"the change of {name} is shared by all edits of the patch, expected rows of each "
            "edit's own: build the patch again from the edits to keep"
        )
    return factor.rows([i for i, owner in enumerate(factor.columns) if owner in wanted])


def _owned(patch: WeightPatch) -> WeightPatch:
    """The patch with its rows attributed where it has one edit only, whose they must be."""
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
