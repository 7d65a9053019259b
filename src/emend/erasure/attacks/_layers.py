"""Layers to read, spread over the depth of a model."""

from __future__ import annotations

from collections.abc import Sequence

from emend.models import ModelView

FROM = 0.5
"""Depth at which the default layers begin, in parts of the number of layers."""


def spread_layers(view: ModelView, count: int, given: Sequence[int] | None = None) -> list[int]:
    """Return layers at equal distances from half of the depth to the last one, ascending.

    Args:
        view: The model.
        count: Most layers; fewer where the upper half has fewer.
        given: Take these instead, all of them.

    Raises:
        InvalidInput: A layer in `given` does not exist.
    """
    if given is not None:
        return sorted(view.numbered(given))
    last, first = view.num_layers - 1, int(FROM * view.num_layers)
    count = max(1, count)
    if count == 1:
        return [last]
    step = (last - first) / (count - 1)
    return sorted({round(first + step * number) for number in range(count)})
