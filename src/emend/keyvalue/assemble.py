"""What the closed-form methods do alike around their equation: settings in, patch out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.keyvalue.values import SearchSettings
from emend.models import ModelView
from emend.patches import Dense, LowRank, WeightPatch, describe_base

UNRECORDED = ("texts", "templates", "cache")
"""Settings that a patch records elsewhere, or that leave no trace."""


def search_settings(view: ModelView, config: Any) -> SearchSettings:
    """What the search takes of a method's settings; None is filled from the model's shape.

    Args:
        view: The model.
        config: Has ``steps``, ``learning_rate``, ``weight_decay``, ``clamp`` and ``kl_factor``.

    Raises:
        InvalidInput: Fewer than one step.
    """
    gated = view.is_gated or view.is_rotary
    steps = (25 if gated else 20) if config.steps is None else config.steps
    if steps < 1:
        raise InvalidInput(f"steps is {steps}, expected at least 1")
    decay = (1e-3 if gated else 0.5) if config.weight_decay is None else config.weight_decay
    return SearchSettings(steps, config.learning_rate, decay, config.clamp, config.kl_factor)


def assemble(
    view: ModelView,
    edits: tuple[Edit, ...],
    changes: Mapping[int, LowRank | Dense],
    *,
    method: str,
    config: Any,
    templates: Sequence[str],
    statistics: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> WeightPatch:
    """The patch of a closed-form method.

    Args:
        view: The model that it is for.
        edits: The edits, in the order in which they were given.
        changes: The change of each layer's down-projection.
        method: The method's name.
        config: Its settings, filled.
        templates: The context templates that were used.
        statistics: What is known of the second moments.
        seconds: Time of each part; "precompute" does not count to that of an edit.
    """
    factors: dict[str, LowRank | Dense] = {}
    for layer, change in changes.items():
        if isinstance(change, LowRank) and len(edits) == 1:
            change = LowRank(change.A, change.B, (edits[0].id,) * change.rank)
        factors[view.name_of(view.down_projection(layer))] = change
    spent = sum(time for part, time in seconds.items() if part != "precompute")
    record = dataclasses.asdict(config)
    return WeightPatch(
        factors=factors,
        edits=edits,
        method=method,
        config={name: record[name] for name in record if name not in UNRECORDED},
        base=describe_base(view.model),
        templates=tuple(templates),
        statistics=statistics,
        timing={**seconds, "per_edit": spent / len(edits)},
    )
