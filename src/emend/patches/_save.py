"""Saving a weight patch as a PEFT LoRA adapter in canonical form.

Canonical: one rank for all modules (smaller factors are padded with zeros), ``lora_alpha``
equal to it as an integer, so that every loader's scaling is exactly 1; full module names,
sorted; float32. What PEFT has no field for goes into ``emend.json`` beside it.

A patch that changes nothing, such as the build of a ledger without active edits, is ``emend.json``
alone: PEFT refuses an adapter of no modules, and one of zeros would cost what an edit costs.
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
from emend.patches._serving import VLLM_RANKS, constraints

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
OWN_DATA = "emend.json"
STATE_TENSORS = "emend_state.safetensors"
MEMORY_TENSORS = "emend_memory.safetensors"
FILES = (ADAPTER_CONFIG, ADAPTER_TENSORS, OWN_DATA, STATE_TENSORS, MEMORY_TENSORS)
KEY_PREFIX = "base_model.model."
FORMAT_VERSION = 1


def save_weight_patch(patch: WeightPatch, directory: Path) -> Path:
    """Write the adapter; see :meth:`WeightPatch.save_pretrained`.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    files, rank = adapter_files(patch)
    write_adapter_files(files, directory)
    if rank > VLLM_RANKS[-1]:
        warnings.warn(
            f"the saved patch has rank {rank}; vLLM serves adapters of rank {VLLM_RANKS[-1]} at "
            f"most: compress(rank={VLLM_RANKS[-1]}) or save_merged for it",
            stacklevel=3,
        )
    return directory


def adapter_files(patch: WeightPatch) -> tuple[dict[str, bytes], int]:
    """Give the files of a saved patch by name, and the rank that its factors are stored with."""
    stored, rank = _stored(patch)
    files: dict[str, bytes] = {}
    blob = b""
    if stored:
        tensors = _padded({name: factor for name, (factor, _) in stored.items()}, rank)
        blob = save(tensors, metadata={"format": "pt"})
        files = {ADAPTER_TENSORS: blob, ADAPTER_CONFIG: json_bytes(adapter_config(patch, rank))}
    modules = {
        name: {"rank": f.rank, "columns": f.columns and list(f.columns), "relative_error": error}
        for name, (f, error) in sorted(stored.items())
    }
    state = save({name: tensor.contiguous() for name, tensor in sorted(patch.state.items())})
    if patch.state:
        files[STATE_TENSORS] = state
    own = _own_data(patch, modules, blob, state)
    own["serving"] = [one.to_dict() for one in constraints(rank, patch.factors, patch.base)]
    return {**files, OWN_DATA: json_bytes(own)}, rank


def write_adapter_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write the files of a saved patch, all of them or nothing.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    with whole_directory(directory, FILES, OWN_DATA) as aside:
        for name, content in files.items():
            (aside / name).write_bytes(content)


def _stored(patch: WeightPatch) -> tuple[dict[str, tuple[LowRank, float]], int]:
    """The factors to store with their errors, and the rank that all are padded to."""
    stored = {name: low_rank(factor) for name, factor in patch.factors.items()}
    return stored, max((max(factor.rank, 1) for factor, _ in stored.values()), default=0)


def adapter_config(patch: WeightPatch, rank: int) -> dict[str, Any]:
    """PEFT's fields for the patch, and none that PEFT does not know."""
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
    for name, factor in sorted(factors.items()):
        spare = rank - factor.rank
        a = torch.nn.functional.pad(factor.A, (0, 0, 0, spare))  # (rank, in)
        b = torch.nn.functional.pad(factor.B, (0, spare))  # (out, rank)
        tensors[f"{KEY_PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{KEY_PREFIX}{name}.lora_B.weight"] = b.contiguous()
    return tensors


def _own_data(
    patch: WeightPatch, modules: dict[str, Any], blob: bytes, state: bytes
) -> dict[str, Any]:
    return {
        "format": "emend-patch",
        "format_version": FORMAT_VERSION,
        "kind": "weight",
        "emend_version": __version__,
        "method": patch.method,
        "config": dict(patch.config),
        "base": dict(patch.base),
        "edits": [without_probes(edit) for edit in patch.edits],
        "modules": modules,
        "templates": list(patch.templates),
        "statistics": dict(patch.statistics),
        "timing": dict(patch.timing),
        "compression": dict(patch.compression),
        "outcomes": [one.to_dict() for one in patch.outcomes],
        "blast": patch.blast and patch.blast.to_dict(),
        "tensors_sha256": hashlib.sha256(blob).hexdigest() if modules else None,
        "state_sha256": hashlib.sha256(state).hexdigest() if patch.state else None,
    }


def without_probes(edit: Edit) -> dict[str, Any]:
    """The record of an edit as patches keep it."""
    return {name: value for name, value in edit_to_record(edit).items() if name != "probes"}


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """Give indented JSON; what it has no word for as text."""
    return (json_text(data, indent=2, default=str) + "\n").encode()
