"""Edits that stand in one another's way: keys of different subjects that are nearly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emend.edits import Edit, group_of

NEAR = 0.95
"""Cosine of two keys from which on their edits are shown."""


class Similar(NamedTuple):
    """Two edits about different subjects whose keys are nearly the same.

    Attributes:
        left: Id of the one.
        right: Id of the other.
        cosine: Of their keys, at most 1.
    """

    left: str
    right: str
    cosine: float


def similar(
    edits: Sequence[Edit], keys: Mapping[str, Tensor], near: float = NEAR
) -> tuple[Similar, ...]:
    """The pairs of edits whose keys can hardly be told apart, the nearest first.

    What is written at one key shows at the other: the two edits, though about different subjects,
    are in part averaged. Edits of one subject are meant to share a key and are left out.

    Args:
        edits: The edits.
        keys: Key of each edit, (inner,), by id; edits without one are left out.
        near: Cosine from which on a pair is given.
    """
    known = [edit for edit in edits if edit.id in keys]
    if len(known) < 2:
        return ()
    matrix = torch.stack([keys[edit.id].double() for edit in known])  # (E, inner)
    matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp(min=1e-30)
    cosines = (matrix @ matrix.T).triu(1)  # (E, E)
    found = [
        Similar(known[left].id, known[right].id, float(cosines[left, right]))
        for left, right in (cosines >= near).nonzero().tolist()
        if known[left].subject != known[right].subject
        and group_of(known[left]) != group_of(known[right])
    ]
    return tuple(sorted(found, key=lambda pair: -pair.cosine))
