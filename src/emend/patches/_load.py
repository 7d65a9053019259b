"""Loading a patch from its directory, with one clear line for whatever is wrong with it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from emend.edits import edit_from_record
from emend.errors import BrokenFile, EmendError, InvalidInput
from emend.patches._base import describe_base
from emend.patches._blast import blast_from
from emend.patches._factors import LowRank
from emend.patches._gguf_read import is_gguf, read_gguf
from emend.patches._hooks import find_modules
from emend.patches._memory_file import load_memory
from emend.patches._outcomes import outcomes_from
from emend.patches._patch import Patch
from emend.patches._peft import read_peft
from emend.patches._reading import checked, read, read_json, require_directory
from emend.patches._save import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    FORMAT_VERSION,
    KEY_PREFIX,
    OWN_DATA,
    STATE_TENSORS,
)
from emend.patches._weight import WeightPatch

logger = logging.getLogger("emend")


def load_patch(path: str | Path, model: nn.Module | None = None) -> Patch:
    """Load what :meth:`Patch.save_pretrained` wrote, or a LoRA adapter of another maker.

    An adapter of PEFT or in a GGUF file becomes a weight patch without edits. It states its base
    by name alone: names and shapes of modules are checked against a model, and that model's weights
    are not, which a note of the logger ``emend`` says.

    Args:
        path: A saved patch, the directory of a PEFT adapter, or a GGUF adapter.
        model: The model that it is for, against which an adapter is checked; needed for a GGUF
            adapter, whose tensors bear llama.cpp's names.

    Raises:
        MissingFile: There is no such directory, or a file of it is not there.
        BrokenFile: A file is cut short, altered or not of its format.
        InvalidInput: The adapter is no sum of low-rank changes of weights, or a newer format.
        MissingExtra: A GGUF adapter, and the package gguf is not installed.
    """
    directory = Path(path)
    if is_gguf(directory):
        return _foreign(directory, read_gguf(directory, model), model)
    require_directory(directory)
    if not (directory / OWN_DATA).exists():
        return _foreign(directory, read_peft(directory), model)
    own = read_json(directory / OWN_DATA)
    _check_own_data(directory / OWN_DATA, own)
    return _adapter(directory, own) if own.get("kind") == "weight" else load_memory(directory, own)


def _foreign(path: Path, patch: WeightPatch, model: nn.Module | None) -> WeightPatch:
    """Check an adapter that we did not write as far as that goes, and note what does not."""
    logger.info(
        "%s was not written by emend: it names its base (%s), not its weights, so that only names "
        "and shapes of modules are checked",
        path,
        patch.base.get("name") or "by no name",
    )
    if model is None:
        return patch
    find_modules(model, patch.factors, patch.base)
    described = {name: value for name, value in describe_base(model).items() if name != "hash"}
    stated = {"name": patch.base["name"]} if patch.base.get("name") else {}
    return replace(patch, base={**described, **stated})


def _adapter(directory: Path, own: dict[str, Any]) -> WeightPatch:
    """The weight patch that a directory of ours holds."""
    factors: dict[str, Tensor] = {}
    # A patch that changes nothing has no adapter.
    if own.get("modules") or own.get("tensors_sha256") is not None:
        read_json(directory / ADAPTER_CONFIG)
        path = directory / ADAPTER_TENSORS
        factors = checked(path, read(path), own.get("tensors_sha256"))
    state: dict[str, Tensor] = {}
    if own.get("state_sha256") is not None:
        path = directory / STATE_TENSORS
        state = checked(path, read(path), own["state_sha256"])
    return _weight_patch(directory, own, factors, state)


def _check_own_data(path: Path, own: dict[str, Any]) -> None:
    if own.get("format") != "emend-patch":
        raise BrokenFile(f"{path} does not say that it is an emend-patch: save the patch again")
    version = own.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InvalidInput(
            f"{path} has format version {version}, expected at most {FORMAT_VERSION}: "
            "load it with a newer emend"
        )


def _weight_patch(
    directory: Path, own: dict[str, Any], tensors: dict[str, Tensor], state: dict[str, Tensor]
) -> WeightPatch:
    try:
        factors = {
            name: _trimmed(tensors, name, module["rank"], module["columns"])
            for name, module in own["modules"].items()
        }
        return WeightPatch(
            factors=factors,
            edits=tuple(edit_from_record(record) for record in own["edits"]),
            method=own["method"],
            config=own["config"],
            base=own["base"],
            templates=tuple(own["templates"]),
            statistics=own["statistics"],
            timing=own["timing"],
            compression=own["compression"],
            outcomes=outcomes_from(own["outcomes"]),
            blast=blast_from(own.get("blast")),
            state=state,
        )
    except EmendError:
        raise
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenFile(
            f"{directory / OWN_DATA} lacks or misstates {error}: save the patch again"
        ) from None


def _trimmed(
    tensors: dict[str, Tensor], name: str, rank: int, columns: list[str] | None
) -> LowRank:
    """The factors of one module without the rows that only pad."""
    a = tensors[f"{KEY_PREFIX}{name}.lora_A.weight"][:rank]
    b = tensors[f"{KEY_PREFIX}{name}.lora_B.weight"][:, :rank]
    return LowRank(a, b, None if columns is None else tuple(columns))
