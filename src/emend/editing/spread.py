"""The canonical build: many edits written over several layers as a function of their set.

MEMIT, Meng et al. 2022, arXiv 2210.07229, algorithm 1, made a function of the base model and the
set of edits (frontier section 3): values are sought on the base model only, edits are sorted by
id, and layer by layer the keys of *all* edits are read again on the rebuilt lower layers and
solved for once, from the base weights. So any order, and any way of batching, builds the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from emend.editing._objective import Site
from emend.editing.assemble import single_layer
from emend.editing.rows import context_rows
from emend.editing.solved import sought_values
from emend.editing.stream import Stream
from emend.editing.values import SearchSettings
from emend.edits import Edit
from emend.errors import UnsupportedModel
from emend.models import ModelView
from emend.models.replay import adds_directly
from emend.patches import Dense, LowRank

Solve = Callable[[int, Tensor, Tensor], "LowRank | Dense"]
"""(layer, keys (E, inner) or (E, C, inner), residuals (E, width)) -> the change of that layer's
down-projection."""

LAYERS = 5
"""How many layers share an edit by default."""


@dataclass(frozen=True)
class Targets:
    """What shall stand at each edit's subject after the last edited layer.

    Attributes:
        edits: E edits, sorted by id.
        wanted: (E, width), one a row.
        site: Whether that is the output of the block or of its down-projection.
        state: What was sought, by name, for going on later.
    """

    edits: tuple[Edit, ...]
    wanted: Tensor
    site: Site
    state: Mapping[str, Tensor]


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


def check_layers(view: ModelView, layers: Sequence[int] | None) -> tuple[int, ...]:
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


def usual_site(view: ModelView, layer: int) -> Site:
    """Where the values of a layer are sought: at its block's output, where that can be written."""
    return "block" if adds_directly(view, layer) else "mlp"


def seek_targets(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layers: Sequence[int],
    settings: SearchSettings,
    known: Mapping[str, Tensor] | None = None,
    site: Site | None = None,
) -> Targets:
    """Seek each edit's value at the last of the layers, on the base model.

    What is ``known`` from an earlier patch is not sought again.

    By default the value stands at the block's output. Where the block does not add its MLP's
    output directly, no change of the MLP gives a wanted output of the block, and the value stands
    at the down-projection's output instead (a single layer then; see `check_layers`).
    """
    ordered = tuple(sorted(edits, key=lambda edit: edit.id))
    layers = sorted(view.numbered(layers))
    site = site or usual_site(view, layers[-1])
    wanted, state = sought_values(
        view, tokenizer, ordered, templates, layers[-1], settings, site, known
    )
    return Targets(ordered, wanted, site, state)


def spread(
    view: ModelView,
    tokenizer: Any,
    targets: Targets,
    templates: Sequence[str],
    layers: Sequence[int],
    solve: Solve,
    *,
    share: Callable[[int], float] = lambda remaining: 1.0 / remaining,
    all_keys: bool = False,
    batch_size: int = 64,
) -> dict[int, LowRank | Dense]:
    """Write the targets over the layers, each taking its share of what is still missing.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        targets: What is wanted; see `seek_targets`.
        templates: Context templates, the bare one first.
        layers: The layers; negative numbers count from the end.
        solve: Solves one layer.
        share: Part of what is missing that a layer takes when so many are left, itself included.
        all_keys: Whether an edit is written at the keys of all contexts; else, as published, at
            the mean of the bare prompt's key and the mean of the others'. What is missing is read
            in the bare prompt.
        batch_size: Rows in one pass.

    Returns:
        The change of each layer's down-projection.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A solution is not finite.
    """
    layers = sorted(view.numbered(layers))
    first, last = layers[0], layers[-1]
    texts = context_rows(tokenizer, targets.edits, templates)  # E times C
    rows = [row.upto_subject for each in texts for row in each]
    stream = Stream(view, rows, first, last, batch_size=batch_size)
    contexts = len(templates)
    changes: dict[int, LowRank | Dense] = {}
    for layer in range(first, last + 1):
        if layer in layers:
            here = stream.read(last)
            keys = here.keys.double().unflatten(0, (-1, contexts))  # (E, C, inner)
            reached = here.at(targets.site).double()[::contexts]  # (E, width), bare prompts
            missing = targets.wanted.double() - reached
            remaining = sum(1 for each in layers if each >= layer)
            found = keys if all_keys else _published(keys)
            changes[layer] = solve(layer, found, missing * share(remaining))
        if layer < last:
            stream.advance(changes.get(layer))
    return changes


def _published(keys: Tensor) -> Tensor:
    """(E, C, inner) -> (E, inner): the mean of the bare prompt's key and the others' mean."""
    if keys.shape[1] == 1:
        return keys[:, 0]
    return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
