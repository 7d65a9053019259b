"""Merging a patch into weights: of a model in memory, or of a Hugging Face checkpoint on disk."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emend import models
from emend._io import files_listed, refuse_foreign, whole_directory, write_json
from emend._version import __version__
from emend.errors import InvalidInput, NumericalFailure
from emend.models.placing import weight_of
from emend.models.saving import save_model, save_tokenizer
from emend.models.wrapping import is_adapted, unwrapped
from emend.patches._base import check_base, find_modules
from emend.patches._factors import Factor

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

MERGE_CARD = "emend_merged.json"
"""The file in a merged checkpoint that records its origin, and marks it as written by emend."""


def merge_into(patch: WeightPatch, model: nn.Module, *, allow_other_base: bool) -> None:
    """See :meth:`WeightPatch.merge_into`."""
    merged = _merged(patch, model, allow_other_base)
    with torch.no_grad():
        for name, module in find_modules(model, patch.factors, patch.base).items():
            module.get_parameter("weight").copy_(merged[name])


def save_merged(
    patch: WeightPatch, model: nn.Module, tokenizer: Any, directory: Path, *, allow_other_base: bool
) -> Path:
    """See :meth:`WeightPatch.save_merged`."""
    ours = files_listed(directory, MERGE_CARD)
    refuse_foreign(directory, ours, MERGE_CARD)  # before the work, and again when it is done
    _refuse_adapters(model)
    model = unwrapped(model)
    merged = _merged(patch, model, allow_other_base)
    state = model.state_dict()
    state.update({f"{name}.weight": weight for name, weight in merged.items()})
    with whole_directory(directory, ours, MERGE_CARD) as aside, _no_bars():
        save_model(model, aside, state_dict=state)
        if tokenizer is not None:
            save_tokenizer(tokenizer, aside)
        names = sorted({path.name for path in aside.iterdir()} | {MERGE_CARD})
        write_json(aside / MERGE_CARD, _card(patch, names))
    return directory


@contextmanager
def _no_bars() -> Generator[None, None, None]:
    """Hide the progress bars of transformers, which shows them in a pipe too."""
    from transformers.utils import logging as chatter

    shown = chatter.is_progress_bar_enabled()
    chatter.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            chatter.enable_progress_bar()


def _card(patch: WeightPatch, names: list[str]) -> dict[str, Any]:
    return {
        "format": "emend-merged",
        "emend_version": __version__,
        "base": dict(patch.base),
        "method": patch.method,
        "edits": [edit.id for edit in patch.edits],
        "norm": patch.norm,
        "files": names,
    }


def _refuse_adapters(model: nn.Module) -> None:
    if is_adapted(model):
        raise InvalidInput(
            "the model has adapters of PEFT in its layers, expected a plain model to save merged: "
            "write those into its weights first (model.merge_and_unload()), or save the patch and "
            "the adapters next to each other"
        )


def _merged(patch: WeightPatch, model: nn.Module, allow_other_base: bool) -> dict[str, Tensor]:
    """Return the changed weights by module, as the model stores them; write nothing yet."""
    if models.attachments(model) or models.for_everyone(model):
        raise InvalidInput(
            "a patch is attached to the model, expected the bare base: detach it before merging "
            "(p + q merges both)"
        )
    modules = find_modules(model, patch.factors, patch.base)
    for name, module in modules.items():
        weight_of(module)  # refuses quantised weights
        _refuse_unwritable(model, name, module)
    check_base(model, patch.base, allow_other_base=allow_other_base)
    return {name: _sum(name, modules[name], factor) for name, factor in patch.factors.items()}


def _refuse_unwritable(model: nn.Module, name: str, module: nn.Module) -> None:
    weight = module.get_parameter("weight")
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise InvalidInput(
            "weights of the model are offloaded, expected all of them in memory to merge: load "
            "it without device_map, or with a larger machine's"
        )
    for path, other in model.named_modules():
        if other is not module and any(p is weight for p in other.parameters(recurse=False)):
            raise InvalidInput(
                f"the weight of {name} is tied to that of {path}, which the patch does not "
                "change, expected a weight of its own: serve the patch as an adapter"
            )


def _sum(name: str, module: nn.Module, factor: Factor) -> Tensor:
    """Return ``cast(W + delta)`` in the module's orientation, added in float32, rounded once."""
    weight = module.get_parameter("weight").detach()
    wide = torch.promote_types(weight.dtype, torch.float32)
    delta = factor.dense()  # (out, in)
    delta = delta.T if type(module).__name__ == "Conv1D" else delta
    merged = (weight.to(wide) + delta.to(device=weight.device, dtype=wide)).to(weight.dtype)
    if not bool(merged.isfinite().all()):
        raise NumericalFailure(
            f"the merged weight of {name} is beyond the range of {weight.dtype}, expected finite "
            "numbers: load the model in bfloat16 or float32"
        )
    return merged.contiguous()
