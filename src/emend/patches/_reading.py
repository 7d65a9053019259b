"""Reading a patch's files, with one clear line for whatever is wrong with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from emend.errors import BrokenFile, InvalidInput, MissingFile, first_line
from emend.patches._save import OWN_DATA


def require_directory(directory: Path) -> None:
    """Raise where there is no directory."""
    if not directory.exists():
        raise MissingFile(f"no patch at {directory}: give the directory that save_pretrained wrote")
    if not directory.is_dir():
        raise InvalidInput(
            f"{directory} is a file, expected a patch directory or a GGUF adapter: give the "
            "directory that save_pretrained wrote"
        )


def read(path: Path) -> bytes:
    """The bytes of a file that must be there."""
    if not path.is_file():
        raise MissingFile(
            f"{path.parent} has no {path.name}, so it is not a patch: give the directory that "
            "save_pretrained wrote"
        )
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        data = json.loads(read(path))
    except ValueError as error:
        raise BrokenFile(
            f"{path} is not valid JSON ({first_line(error)}): save the patch again"
        ) from None
    if not isinstance(data, dict):
        raise BrokenFile(
            f"{path} holds a {type(data).__name__}, expected an object: save the patch again"
        )
    return data


def checked(path: Path, blob: bytes, digest: object) -> dict[str, Tensor]:
    """The tensors of a file that must be the one that was written with the others."""
    tensors = tensors_of(path, blob)  # a file cut short has the clearer error of its own
    if digest != hashlib.sha256(blob).hexdigest():
        raise BrokenFile(
            f"{path} is not the file that {OWN_DATA} was written with "
            "(its sha256 differs): save the patch again"
        )
    return tensors


def tensors_of(path: Path, blob: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    try:
        return load_tensors(blob)
    except (SafetensorError, ValueError) as error:
        raise BrokenFile(
            f"{path} is cut short or not a safetensors file "
            f"({len(blob)} bytes; {first_line(error)}): save or download it again"
        ) from None
