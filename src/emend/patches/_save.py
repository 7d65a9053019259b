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

import emend
from emend._io import json_text, whole_directory
from emend.edits import Edit, edit_to_record
from emend.errors import InvalidInput
from emend.patches._factors import Factor, LowRank, compress
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
TOLERANCE = 1e-6


def save_weight_patch(patch: WeightPatch, directory: Path) -> Path:
    """Write the adapter; see :meth:`WeightPatch.save_pretrained`.

    Raises:
        InvalidInput: The directory is not ours to replace.
    """
    stored, rank = _stored(patch)
    blob = b""
    if stored:
        tensors = _padded({name: factor for name, (factor, _) in stored.items()}, rank)
        blob = save(tensors, metadata={"format": "pt"})
    modules = {
        name: {"rank": f.rank, "columns": f.columns and list(f.columns), "relative_error": error}
        for name, (f, error) in sorted(stored.items())
    }
    state = save({name: tensor.contiguous() for name, tensor in sorted(patch.state.items())})
    own = _own_data(patch, modules, blob, state)
    own["serving"] = [one.to_dict() for one in constraints(rank, patch.factors, patch.base)]
    with whole_directory(directory, FILES, OWN_DATA) as aside:
        if stored:
            (aside / ADAPTER_TENSORS).write_bytes(blob)
            write_json(aside / ADAPTER_CONFIG, adapter_config(patch, rank))
        if patch.state:
            (aside / STATE_TENSORS).write_bytes(state)
        write_json(aside / OWN_DATA, own)
    if rank > VLLM_RANKS[-1]:
        warnings.warn(
            f"the saved patch has rank {rank}; vLLM serves adapters of rank {VLLM_RANKS[-1]} at "
            f"most: compress(rank={VLLM_RANKS[-1]}) or save_merged for it",
            stacklevel=3,
        )
    return directory


def export_llama_cpp(patch: WeightPatch, directory: str | Path) -> Path:
    """Write an adapter that llama.cpp's ``convert_lora_to_gguf.py`` converts rightly.

    For transposed layers (GPT-2's Conv1D) that converter takes in for out. There A' = B^T and
    B' = A^T are stored, which it turns into the right shapes; PEFT and :func:`load_patch` cannot
    read these any more. For all other models what is written differs from a saved patch only in
    that it bears no edits.

    Returns:
        The directory.

    Raises:
        InvalidInput: The patch changes nothing, or the directory is not ours to replace.
    """
    stored, rank = _stored(patch)
    if not stored:
        raise InvalidInput(
            "the patch changes nothing, expected one module at least: convert the base model alone"
        )
    factors = {name: factor for name, (factor, _) in stored.items()}
    if patch.base.get("fan_in_fan_out"):
        factors = {name: LowRank(f.B.T, f.A.T) for name, f in factors.items()}
    blob = save(_padded(factors, rank), metadata={"format": "pt"})
    own = {"format": "emend-patch", "format_version": FORMAT_VERSION, "kind": "llama.cpp"}
    config = {**adapter_config(patch, rank), "fan_in_fan_out": False}
    with whole_directory(Path(directory), FILES, OWN_DATA) as aside:
        (aside / ADAPTER_TENSORS).write_bytes(blob)
        write_json(aside / ADAPTER_CONFIG, config)
        write_json(aside / OWN_DATA, {**own, "base": dict(patch.base), "method": patch.method})
    return Path(directory)


def _stored(patch: WeightPatch) -> tuple[dict[str, tuple[LowRank, float]], int]:
    """The factors to store with their errors, and the rank that all are padded to."""
    stored = {name: _low_rank(factor) for name, factor in patch.factors.items()}
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


def _low_rank(factor: Factor) -> tuple[LowRank, float]:
    """The factors to store and their relative error (0 where they are stored as they are)."""
    return (factor, 0.0) if isinstance(factor, LowRank) else compress(factor, TOLERANCE)


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
        "emend_version": emend.__version__,
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write indented JSON; what it has no word for as text."""
    path.write_bytes((json_text(data, indent=2, default=str) + "\n").encode())
