"""Writing patches: a weight patch as a PEFT LoRA adapter in canonical form, or a memory patch.

Canonical: one rank for all modules (smaller factors are padded with zeros), ``lora_alpha`` equal
to it as an integer, so that every loader's scaling is exactly 1; full module names, sorted;
float32. Data for which PEFT has no field is in ``emend.json`` of the same directory.

A patch that changes nothing, such as the build of a ledger without active edits, is ``emend.json``
alone: PEFT refuses an adapter without modules, and one of zeros would cost what an edit costs.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from emend._io import json_text, whole_directory
from emend._version import __version__
from emend.edits import Edit, edit_to_record
from emend.patches._factors import LowRank, low_rank
from emend.patches._files import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    FILES,
    FORMAT_VERSION,
    KEY_PREFIX,
    MEMORY_TENSORS,
    OWN_DATA,
    STATE_TENSORS,
)
from emend.patches._serving import VLLM_RANKS, constraints

if TYPE_CHECKING:
    from emend.patches._memory import MemoryPatch
    from emend.patches._patch import Patch
    from emend.patches._weight import WeightPatch

METADATA = {"format": "pt"}
"""Metadata that transformers expects of a safetensors file."""


def save_weight_patch(patch: WeightPatch, directory: Path) -> Path:
    """Write the adapter; see :meth:`WeightPatch.save_pretrained`.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    files, rank = adapter_files(patch)
    write_patch_files(files, directory)
    if rank > VLLM_RANKS[-1]:
        warnings.warn(
            f"the saved patch has rank {rank}; vLLM serves adapters of rank {VLLM_RANKS[-1]} at "
            f"most: compress(rank={VLLM_RANKS[-1]}) or save_merged for it",
            stacklevel=3,
        )
    return directory


def save_memory_patch(patch: MemoryPatch, directory: Path) -> Path:
    """Write a memory patch; see :meth:`Patch.save_pretrained`.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    blob = _blob(patch.tensors, METADATA)
    own = {
        **_origin(patch),
        "details": dict(patch.details),
        "timing": dict(patch.timing),
        **_results(patch),
        "tensors_sha256": hashlib.sha256(blob).hexdigest(),
    }
    write_patch_files({MEMORY_TENSORS: blob, OWN_DATA: _json_bytes(own)}, directory)
    return directory


def adapter_files(patch: WeightPatch) -> tuple[dict[str, bytes], int]:
    """Return the files of a saved weight patch by name, and the rank that they are stored with."""
    stored = {name: low_rank(factor) for name, factor in sorted(patch.factors.items())}
    rank = max((max(factor.rank, 1) for factor, _ in stored.values()), default=0)
    files: dict[str, bytes] = {}
    hashes: dict[str, str | None] = {"tensors_sha256": None, "state_sha256": None}
    if stored:
        blob = _blob(_padded({name: f for name, (f, _) in stored.items()}, rank), METADATA)
        files = {ADAPTER_TENSORS: blob, ADAPTER_CONFIG: _json_bytes(_peft_config(patch, rank))}
        hashes["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
    if patch.state:
        files[STATE_TENSORS] = _blob(patch.state)
        hashes["state_sha256"] = hashlib.sha256(files[STATE_TENSORS]).hexdigest()
    own = {
        **_origin(patch),
        "modules": {
            name: {"rank": f.rank, "columns": f.columns and list(f.columns), "relative_error": e}
            for name, (f, e) in stored.items()
        },
        "templates": list(patch.templates),
        "statistics": dict(patch.statistics),
        "timing": dict(patch.timing),
        "compression": dict(patch.compression),
        **_results(patch),
        **hashes,
        "serving": [one.to_dict() for one in constraints(rank, patch.factors, patch.base)],
    }
    return {**files, OWN_DATA: _json_bytes(own)}, rank


def write_patch_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write the files of a saved patch, all of them or nothing.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    with whole_directory(directory, FILES, OWN_DATA) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)


def _peft_config(patch: WeightPatch, rank: int) -> dict[str, Any]:
    """Return PEFT's fields for the patch, and none that PEFT does not know."""
    return {
        "base_model_name_or_path": patch.base.get("name") or None,
        "bias": "none",
        "fan_in_fan_out": bool(patch.base.get("fan_in_fan_out", False)),
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(patch.factors),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }


def _padded(factors: Mapping[str, LowRank], rank: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, factor in factors.items():
        spare = rank - factor.rank
        a = torch.nn.functional.pad(factor.A, (0, 0, 0, spare))  # (rank, in)
        b = torch.nn.functional.pad(factor.B, (0, spare))  # (out, rank)
        tensors[f"{KEY_PREFIX}{name}.lora_A.weight"] = a
        tensors[f"{KEY_PREFIX}{name}.lora_B.weight"] = b
    return tensors


def _blob(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    return save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata)


def _origin(patch: Patch) -> dict[str, Any]:
    return {
        "format": "emend-patch",
        "format_version": FORMAT_VERSION,
        "kind": patch.kind,
        "emend_version": __version__,
        "method": patch.method,
        "config": dict(patch.config),
        "base": dict(patch.base),
        "edits": [_without_probes(edit) for edit in patch.edits],
    }


def _results(patch: Patch) -> dict[str, Any]:
    return {
        "outcomes": [one.to_dict() for one in patch.outcomes],
        "blast": patch.blast and patch.blast.to_dict(),
    }


def _without_probes(edit: Edit) -> dict[str, Any]:
    return {name: value for name, value in edit_to_record(edit).items() if name != "probes"}


def _json_bytes(data: Mapping[str, Any]) -> bytes:
    """Return indented JSON; values without a JSON form become text."""
    return (json_text(data, indent=2, default=str) + "\n").encode()
