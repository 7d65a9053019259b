"""Reading patches: those of emend, checked file by file, and adapters of other makers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from emend._registry import METHODS, Registry
from emend.edits import edit_from_record
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile
from emend.patches._base import describe_base, find_modules
from emend.patches._factors import LowRank
from emend.patches._files import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    FORMAT_VERSION,
    KEY_PREFIX,
    MEMORY_TENSORS,
    OWN_DATA,
    STATE_TENSORS,
    read_json,
    read_own_tensors,
)
from emend.patches._foreign import is_gguf, read_gguf, read_peft
from emend.patches._memory import MemoryPatch
from emend.patches._patch import Patch
from emend.patches._results import blast_from, outcomes_from
from emend.patches._weight import WeightPatch

logger = logging.getLogger("emend")


def load_patch(path: str | Path, model: nn.Module | None = None) -> Patch:
    """Load a patch that :meth:`Patch.save_pretrained` wrote, or a LoRA adapter of another maker.

    An adapter of PEFT or in a GGUF file becomes a weight patch without edits. It states its base
    by name only, so that only names and shapes of modules are checked (the log states this).

    Args:
        path: A saved patch, the directory of a PEFT adapter, or a GGUF adapter.
        model: The model that it is for, against which an adapter is checked; needed for a GGUF
            adapter, whose tensors have llama.cpp's names.

    Raises:
        MissingFile: There is no such directory, or a file in it is missing.
        BrokenFile: A file is cut short, altered or not of its format.
        InvalidInput: The adapter is no sum of low-rank changes of weights, or a newer format.
        MissingExtra: A GGUF adapter, and the package gguf is not installed.
    """
    directory = Path(path)
    if is_gguf(directory):
        return _foreign(directory, read_gguf(directory, model), model)
    if not directory.exists():
        raise MissingFile(f"no patch at {directory}: give the directory that save_pretrained wrote")
    if not directory.is_dir():
        raise InvalidInput(
            f"{directory} is a file, expected a patch directory or a GGUF adapter: give the "
            "directory that save_pretrained wrote"
        )
    if not (directory / OWN_DATA).exists():
        return _foreign(directory, read_peft(directory), model)
    own = read_json(directory / OWN_DATA)
    _check_version(directory / OWN_DATA, own)
    load = _weight_patch if own.get("kind") == "weight" else _memory_patch
    try:
        return load(directory, own)
    except EmendError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenFile(
            f"{directory / OWN_DATA} lacks or misstates {error}: save the patch again"
        ) from None


def _foreign(path: Path, patch: WeightPatch, model: nn.Module | None) -> WeightPatch:
    """Check an adapter of another maker against the model, and note what cannot be checked."""
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


def _check_version(path: Path, own: dict[str, Any]) -> None:
    if own.get("format") != "emend-patch":
        raise BrokenFile(f"{path} does not say that it is an emend-patch: save the patch again")
    version = own.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InvalidInput(
            f"{path} has format version {version}, expected at most {FORMAT_VERSION}: "
            "load it with a newer emend"
        )


def _common(own: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that every kind of patch has."""
    return {
        "edits": tuple(edit_from_record(record) for record in own["edits"]),
        "method": own["method"],
        "config": own["config"],
        "base": own["base"],
        "timing": own["timing"],
        "outcomes": outcomes_from(own["outcomes"]),
        "blast": blast_from(own.get("blast")),
    }


def _weight_patch(directory: Path, own: dict[str, Any]) -> WeightPatch:
    tensors: dict[str, Tensor] = {}
    if own.get("modules") or own.get("tensors_sha256") is not None:  # else it changes nothing
        read_json(directory / ADAPTER_CONFIG)
        tensors = read_own_tensors(directory / ADAPTER_TENSORS, own.get("tensors_sha256"))
    state: dict[str, Tensor] = {}
    if own.get("state_sha256") is not None:
        state = read_own_tensors(directory / STATE_TENSORS, own["state_sha256"])
    return WeightPatch(
        factors={name: _factor(tensors, name, one) for name, one in own["modules"].items()},
        templates=tuple(own["templates"]),
        statistics=own["statistics"],
        compression=own["compression"],
        state=state,
        **_common(own),
    )


def _factor(tensors: dict[str, Tensor], name: str, module: dict[str, Any]) -> LowRank:
    """Return the factors of one module without the rows of padding."""
    rank, columns = module["rank"], module["columns"]
    a = tensors[f"{KEY_PREFIX}{name}.lora_A.weight"][:rank]
    b = tensors[f"{KEY_PREFIX}{name}.lora_B.weight"][:, :rank]
    return LowRank(a, b, None if columns is None else tuple(columns))


def _memory_patch(directory: Path, own: dict[str, Any]) -> MemoryPatch:
    kind, method = own.get("kind"), str(own.get("method"))
    patch_type = _memory_type(method) if kind == "memory" else None
    if patch_type is None:
        raise InvalidInput(
            f"{directory / OWN_DATA} is of kind {kind!r} by {method!r}, expected weights or a "
            "memory of a method that is installed: load it with a newer emend, or install the "
            "package that brings the method"
        )
    tensors = read_own_tensors(directory / MEMORY_TENSORS, own.get("tensors_sha256"))
    return patch_type(tensors=tensors, details=own["details"], **_common(own))


def _memory_type(method: str) -> type[MemoryPatch] | None:
    """Return the class of a method's memories; None where the method is unknown or has none."""
    registry: Registry[Any] = Registry("method", METHODS, "emend.methods")
    found = registry.get(method).patch_type if method in registry else None
    return found if isinstance(found, type) and issubclass(found, MemoryPatch) else None
