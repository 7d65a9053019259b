"""Write a weight patch as the LoRA adapter that llama.cpp loads beside a base in GGUF.

Alpha is 0, which llama.cpp takes as a scale of 1 whatever the rank: the change is exact, and each
matrix has the rank that it needs. Layout: `llama_adapter_lora_init_impl` in llama-adapter.cpp.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend._io import whole_file
from emend._version import __version__
from emend.errors import InvalidInput
from emend.models.gguf_header import Header, read_header
from emend.models.gguf_names import GgufNames
from emend.patches._factors import LowRank, low_rank

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

MARK = "emend.patch"
"""The key by which a GGUF file is known to be ours to replace."""


def write_gguf_adapter(
    patch: WeightPatch, path: Path, names: GgufNames, base: Header | None
) -> None:
    """Write the adapter, whole or not at all.

    Args:
        patch: What it changes.
        path: The file; an export of ours is replaced.
        names: The names of the base's tensors.
        base: Of the GGUF file that it will be served on, where it is known.

    Raises:
        InvalidInput: A module has no tensor in such files, the base has another shape there, or
            the path holds something that is not ours.
        StoreFailure: It cannot be written.
    """
    tensors = names.tensors(patch.factors)
    if base is not None:
        check_fit(patch, tensors, names, base)
    refuse_foreign_file(path)
    import gguf

    with whole_file(path) as aside:
        writer = gguf.GGUFWriter(aside, names.architecture)
        try:
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", 0.0)
            if name := patch.base.get("name"):
                writer.add_string("general.base_model.0.name", str(name))
            writer.add_string(MARK, origin(patch))
            for module, tensor in tensors.items():
                if patch.factors[module].rank:
                    _add(writer, names, tensor, low_rank(patch.factors[module])[0])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        _check_size(aside)


def _check_size(path: Path) -> None:
    """Refuse a file that was cut short: numpy's `tofile` passes over what a full disk refuses.

    Raises:
        OSError: The tensors that it names reach beyond its end.
    """
    header = read_header(path, whole=False)
    ends = (4 * math.prod(place.shape) + place.offset for place in header.tensors.values())
    if path.stat().st_size < header.data_at + max(ends):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _add(writer: Any, names: GgufNames, tensor: str, factor: LowRank) -> None:
    rows = names.to_gguf(tensor, factor.B)
    writer.add_tensor(f"{tensor}.weight.lora_a", factor.A.contiguous().numpy())
    writer.add_tensor(f"{tensor}.weight.lora_b", rows.contiguous().numpy())


def check_fit(
    patch: WeightPatch, tensors: Mapping[str, str], names: GgufNames, base: Header
) -> None:
    """Refuse a GGUF base that has other tensors than the model that a patch was made for.

    Raises:
        InvalidInput: Its architecture is another, or a tensor is missing or of another shape.
    """
    if base.architecture != names.architecture:
        raise InvalidInput(
            f"the base GGUF is of architecture {base.architecture!r}, the patch is for "
            f"{names.architecture!r}: give the GGUF of the model that was edited"
        )
    for module, tensor in tensors.items():
        place = base.tensors.get(f"{tensor}.weight")
        if place is None:
            raise InvalidInput(
                f"the base GGUF has no tensor {tensor}.weight, which the patch changes ({module}): "
                "give the GGUF of the model that was edited"
            )
        if place.shape != patch.factors[module].shape:
            raise InvalidInput(
                f"{tensor}.weight is {place.shape} in the base GGUF, but the patch changes a "
                f"matrix of {patch.factors[module].shape} ({module}): give the GGUF of the model "
                "that was edited"
            )


def origin(patch: WeightPatch) -> str:
    """State what a GGUF file was made of, as JSON for its key `MARK`."""
    about = {
        "emend_version": __version__,
        "method": patch.method,
        "edits": [edit.id for edit in patch.edits],
        "base": {name: patch.base.get(name) for name in ("name", "hash", "model_type")},
    }
    return json.dumps(about)


def refuse_foreign_file(path: Path) -> None:
    """Refuse to replace a file that is not an export of ours.

    Raises:
        InvalidInput: There is one.
    """
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        ours = path.is_file() and MARK in read_header(path, whole=False).values
    except ValueError:
        ours = False
    if not ours:
        raise InvalidInput(
            f"{path} is there and is not a GGUF file that emend exported: give another path"
        )
