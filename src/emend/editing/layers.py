"""Choose the layers that a method edits."""

from __future__ import annotations

from collections.abc import Sequence

from emend.errors import UnsupportedModel
from emend.models import ModelView
from emend.models.replay import adds_directly

LAYERS = 5
"""Layers that share an edit by default."""


def single_layer(view: ModelView, layer: int | None) -> int:
    """Return the layer of a method that edits one; None gives the default.

    The default is at 0.17 of the depth (gated MLPs or rotary positions) or 0.35 (others), and at
    0.06 where the MLP's output is changed before it is added to the residual stream, as by the
    norm of Gemma and OLMo 2 (docs/defaults.md).

    Raises:
        InvalidInput: The layer does not exist.
        UnsupportedModel: The layer cannot be edited.
    """
    if layer is not None:
        (chosen,) = view.numbered([layer])
        view.down_projection(chosen)  # refused before any work
        return chosen
    usual = view.nearest_editable(round((0.17 if view.is_llama_like else 0.35) * view.num_layers))
    if adds_directly(view, usual):
        return usual
    return view.nearest_editable(min(max(1, round(0.06 * view.num_layers)), view.num_layers - 1))


def default_layers(view: ModelView) -> tuple[int, ...]:
    """Return five layers ending at 0.27 of the depth (gated or rotary) or 0.35 (others).

    There may be fewer in a shallow model or a mixture of experts. The last layer is never taken,
    unless it is the only one. Where a layer does not add its MLP's output directly, it is one
    layer: that of `single_layer`.
    """
    share = 0.27 if view.is_llama_like else 0.35
    last = view.nearest_editable(max(min(round(share * view.num_layers), view.num_layers - 2), 0))
    if not adds_directly(view, last):
        return (single_layer(view, None),)
    return tuple(layer for layer in view.editable if last - LAYERS < layer <= last)


def editable_layers(view: ModelView, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Return the layers to edit, ascending; None gives the default.

    Raises:
        InvalidInput: There is no layer, or one does not exist.
        UnsupportedModel: A layer cannot be edited, or there are several where an MLP's output is
            changed before it is added to the residual stream.
    """
    if layers is None:
        return default_layers(view)
    chosen = tuple(sorted(view.numbered(layers)))
    for layer in chosen:
        view.down_projection(layer)  # refused before any work
    if len(chosen) > 1 and not adds_directly(view, chosen[-1]):
        raise UnsupportedModel(
            f"{type(view.model).__name__} changes what its MLPs put out before adding it (a norm, "
            f"or a factor), so an edit cannot be shared by {len(chosen)} layers: give one layer"
        )
    return chosen
