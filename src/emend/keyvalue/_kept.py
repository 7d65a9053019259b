"""Tensors kept on disk with a note: whole or not at all, also where the machine goes down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emend._io import whole_file

# A file that another process replaces while it is opened gives a RuntimeError.
_UNREADABLE = (OSError, SafetensorError, RuntimeError)


def keep(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able note: aside, to the disk itself, then renamed."""
    whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with whole_file(path) as aside:
        save_file(whole, aside, {"emend": json.dumps(dict(note))})


def kept_note(path: Path) -> dict[str, Any] | None:
    """The note of a file, without its tensors; None where there is no file, or no whole one."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["emend"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return None


def kept(path: Path, *names: str) -> tuple[Tensor, ...] | None:
    """Tensors of a file; None where one is not there, or the file is not whole."""
    try:
        with safe_open(path, "pt") as file:
            return tuple(file.get_tensor(name) for name in names)
    except _UNREADABLE:
        return None


def as_tokens(ids: list[int]) -> Tensor:
    """Token ids as a tensor that can be kept; a tensor of none would have no bytes."""
    return torch.tensor([len(ids), *ids], dtype=torch.int64)
