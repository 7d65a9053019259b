"""A cache of tensors on disk: one safetensors file each, with a JSON note, written atomically.

The cache saves time and changes no result: where its directory cannot be written, one warning
states so and work continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emend._io import whole_file
from emend._warn import warn
from emend.errors import InvalidInput, first_line

# Opening a file while another process replaces it raises a RuntimeError.
_UNREADABLE = (OSError, SafetensorError, RuntimeError)


_warned: set[Path] = set()


def write(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> bool:
    """Write tensors and a JSON-able note, or warn once that the directory cannot be written.

    Returns:
        Whether they were written.
    """
    whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    try:
        with whole_file(path) as aside:
            save_file(whole, aside, {"emend": json.dumps(dict(note))})
    except (InvalidInput, OSError, SafetensorError) as error:
        if path.parent not in _warned:
            _warned.add(path.parent)
            reason = getattr(error.__cause__, "strerror", None) or first_line(error)
            warn(
                f"results cannot be cached in {path.parent} ({reason}) and are computed again each "
                "time: set EMEND_CACHE to a directory that can be written"
            )
        return False
    return True


def drop(path: Path) -> None:
    """Remove a file, if that is possible."""
    with suppress(OSError):
        path.unlink()


def read_note(path: Path) -> dict[str, Any] | None:
    """Read the note of a file, not its tensors; None if the file is missing or broken."""
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["emend"])
    except (*_UNREADABLE, KeyError, TypeError, ValueError):
        return None


def read(path: Path, *names: str) -> tuple[Tensor, ...] | None:
    """Read tensors of a file; None if one is missing or the file is broken."""
    try:
        with safe_open(path, "pt") as file:
            return tuple(file.get_tensor(name) for name in names)
    except _UNREADABLE:
        return None


def as_tokens(ids: list[int]) -> Tensor:
    """Return token ids with their count in front: safetensors cannot store an empty tensor."""
    return torch.tensor([len(ids), *ids], dtype=torch.int64)
