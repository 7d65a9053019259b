"""The files of a saved patch: their names, and reading one with a clear error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from emend.errors import BrokenFile, MissingFile, first_line

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
OWN_DATA = "emend.json"
STATE_TENSORS = "emend_state.safetensors"
MEMORY_TENSORS = "emend_memory.safetensors"
FILES = (ADAPTER_CONFIG, ADAPTER_TENSORS, OWN_DATA, STATE_TENSORS, MEMORY_TENSORS)
KEY_PREFIX = "base_model.model."
"""What PEFT puts before the name of a module."""
FORMAT_VERSION = 1


def read_json(path: Path) -> dict[str, Any]:
    """Read the object that a JSON file of a patch holds."""
    try:
        data = json.loads(_read(path))
    except ValueError as error:
        raise BrokenFile(
            f"{path} is not valid JSON ({first_line(error)}): save the patch again"
        ) from None
    if not isinstance(data, dict):
        raise BrokenFile(
            f"{path} holds a {type(data).__name__}, expected an object: save the patch again"
        )
    return data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file."""
    return _parsed(path, _read(path))


def read_own_tensors(path: Path, digest: object) -> dict[str, Tensor]:
    """Read the tensors of a file that must have the SHA-256 that `OWN_DATA` states."""
    blob = _read(path)
    tensors = _parsed(path, blob)  # a file cut short has the clearer error of its own
    if digest != hashlib.sha256(blob).hexdigest():
        raise BrokenFile(
            f"{path} is not the file that {OWN_DATA} was written with "
            "(its sha256 differs): save the patch again"
        )
    return tensors


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise MissingFile(
            f"{path.parent} has no {path.name}, so it is not a patch: give the directory that "
            "save_pretrained wrote"
        )
    return path.read_bytes()


def _parsed(path: Path, blob: bytes) -> dict[str, Tensor]:
    try:
        return load(blob)
    except (SafetensorError, ValueError) as error:
        raise BrokenFile(
            f"{path} is cut short or not a safetensors file "
            f"({len(blob)} bytes; {first_line(error)}): save or download it again"
        ) from None
