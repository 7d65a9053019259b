"""Which layers a method edits."""

from __future__ import annotations

from collections.abc import Sequence

from emend.errors import UnsupportedModel
from emend.models import ModelView
from emend.models.replay import adds_directly

LAYERS = 5
"""How many layers share an edit by default."""


def single_layer(view: ModelView, layer: int | None) -> int:
    """The layer of a method that edits one; None gives the default.

    That is at 0.17 of the depth (gated MLPs or rotary positions) or 0.35 (others), and at 0.06
    where what an MLP puts out is changed before it joins the stream, as by the norm of Gemma and
    OLMo 2 (docs/defaults.md).

    Raises:
        InvalidInput: The model has no such layer.
        UnsupportedModel: It cannot be edited.
    """
    if layer is not None:
        (chosen,) = view.numbered([layer])
        view.down_projection(chosen)  # refused now, and not when minutes have been spent
        return chosen
    usual = view.nearest_editable(round((0.17 if view.is_llama_like else 0.35) * view.num_layers))
    if adds_directly(view, usual):
        return usual
    return view.nearest_editable(min(max(1, round(0.06 * view.num_layers)), view.num_layers - 1))


def default_layers(view: ModelView) -> tuple[int, ...]:
    """Five layers ending at 0.27 of the depth (gated or rotary) or 0.35 (others); spec section 0.

    Where that leaves fewer than five, fewer; never the last block, unless it is the only one.
    Of a mixture of experts, those among them that can be edited. Where a block does not add its
    MLP's output directly, one layer: ROME's.
    """
    share = 0.27 if view.is_llama_like else 0.35
    last = view.nearest_editable(max(min(round(share * view.num_layers), view.num_layers - 2), 0))
    if not adds_directly(view, last):
        return (single_layer(view, None),)
    return tuple(layer for layer in view.editable if last - LAYERS < layer <= last)


def editable_layers(view: ModelView, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers to edit, ascending; None gives the default.

    Raises:
        InvalidInput: No layer, or one that the model has not.
        UnsupportedModel: A block that cannot be edited, or several layers, where what an MLP
            puts out is changed before it is added to the stream.
    """
    if layers is None:
        return default_layers(view)
    chosen = tuple(sorted(view.numbered(layers)))
    for layer in chosen:
        view.down_projection(layer)  # refused now, and not when values have been sought
    if len(chosen) > 1 and not adds_directly(view, chosen[-1]):
        raise UnsupportedModel(
            f"{type(view.model).__name__} changes what its MLPs put out before adding it (a norm, "
            f"or a factor), so an edit cannot be shared by {len(chosen)} layers: give one layer"
        )
    return chosen
