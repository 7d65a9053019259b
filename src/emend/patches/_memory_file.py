"""Memory patches on disk: ``emend.json``, and their tensors in a safetensors file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from emend._io import whole_directory
from emend._registry import METHODS, Registry
from emend._version import __version__
from emend.edits import edit_from_record
from emend.errors import BrokenFile, EmendError, InvalidInput
from emend.patches._blast import blast_from
from emend.patches._memory import MemoryPatch
from emend.patches._outcomes import outcomes_from
from emend.patches._reading import checked, read
from emend.patches._save import (
    FILES,
    FORMAT_VERSION,
    MEMORY_TENSORS,
    OWN_DATA,
    json_bytes,
    without_probes,
)


def _patch_type(method: str) -> type[MemoryPatch] | None:
    """Return the class of a method's memories; None where the method is unknown or makes none."""
    registry: Registry[Any] = Registry("method", METHODS, "emend.methods")
    made = registry.get(method).patch_type if method in registry else None
    return made if isinstance(made, type) and issubclass(made, MemoryPatch) else None


def save_memory(patch: MemoryPatch, directory: Path) -> Path:
    """Write a memory patch, all of it or nothing; see :meth:`Patch.save_pretrained`."""
    blob = save(
        {name: tensor.contiguous() for name, tensor in sorted(patch.tensors.items())},
        metadata={"format": "pt"},
    )
    own = {
        "format": "emend-patch",
        "format_version": FORMAT_VERSION,
        "kind": "memory",
        "emend_version": __version__,
        "method": patch.method,
        "config": dict(patch.config),
        "base": dict(patch.base),
        "edits": [without_probes(edit) for edit in patch.edits],
        "details": dict(patch.details),
        "timing": dict(patch.timing),
        "outcomes": [one.to_dict() for one in patch.outcomes],
        "blast": patch.blast and patch.blast.to_dict(),
        "tensors_sha256": hashlib.sha256(blob).hexdigest(),
    }
    with whole_directory(directory, FILES, OWN_DATA) as aside:
        (aside / MEMORY_TENSORS).write_bytes(blob)
        (aside / OWN_DATA).write_bytes(json_bytes(own))
    return directory


def load_memory(directory: Path, own: Mapping[str, Any]) -> MemoryPatch:
    """The memory patch that a directory holds.

    Args:
        directory: Where it is.
        own: What its ``emend.json`` says.

    Raises:
        InvalidInput: It is of a kind that is not known.
        MissingFile: Its tensors are not there.
        BrokenFile: A file is cut short, altered or lacks something.
    """
    kind, method = own.get("kind"), str(own.get("method"))
    patch_type = _patch_type(method) if kind == "memory" else None
    if patch_type is None:
        raise InvalidInput(
            f"{directory / OWN_DATA} is of kind {kind!r} by {method!r}, expected weights or a "
            "memory of a method that is installed: load it with a newer emend, or install the "
            "package that brings the method"
        )
    path = directory / MEMORY_TENSORS
    tensors = checked(path, read(path), own.get("tensors_sha256"))
    try:
        return patch_type(
            edits=tuple(edit_from_record(record) for record in own["edits"]),
            method=own["method"],
            config=own["config"],
            base=own["base"],
            timing=own["timing"],
            tensors=tensors,
            details=own["details"],
            outcomes=outcomes_from(own["outcomes"]),
            blast=blast_from(own.get("blast")),
        )
    except EmendError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenFile(
            f"{directory / OWN_DATA} lacks or misstates {error}: save the patch again"
        ) from None
