"""What was solved for each edit, between the tensors of a method and the bytes of a ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from emend.edits import Edit
from emend.keyvalue import subject_keys
from emend.keyvalue.solved import edit_of
from emend.ledger import Ledger
from emend.models import ModelView, encode
from emend.patches import LowRank, MemoryPatch, Patch, WeightPatch

BARE = ["{}"]


def known_values(ledger: Ledger, base: str, method: str) -> dict[str, Tensor]:
    """The values that were sought for a method on a base model, by fingerprint."""
    return {name: load(data)["value"] for name, data in ledger.values(base, method).items()}


def known_keys(ledger: Ledger, base: str, method: str) -> dict[str, Tensor]:
    """The key of each edit that was solved for, (inner,) float32, by the edit's id."""
    found: dict[str, Tensor] = {}
    for name, data in ledger.values(base, method).items():
        tensors, edit = load(data), edit_of(name)
        if edit is not None and "key" in tensors:
            found[edit] = tensors["key"]
    return found


def keep_values(
    ledger: Ledger, view: ModelView, tokenizer: Any, patch: WeightPatch, known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Write down the values of a patch that are new, each with its key and its lookup token.

    Returns:
        The new values by fingerprint.
    """
    new = {name: value for name, value in patch.state.items() if name not in known}
    owners = {name: edit for name in new if (edit := edit_of(name)) is not None}
    by_id = {edit.id: edit for edit in patch.edits}
    edits = [by_id[owners[name]] for name in owners]
    if not edits:
        return {}
    layer = layer_of(patch)
    keys = subject_keys(view, tokenizer, edits, BARE, [layer])[layer].keys[:, 0]  # (E, inner)
    tokens = _lookups(tokenizer, edits)
    ledger.keep_values(
        patch.base["hash"],
        patch.method,
        {
            name: save({"value": new[name].contiguous(), "key": key.contiguous()})
            for name, key in zip(owners, keys, strict=True)
        },
        config=patch.config,
        edits=owners,
        details={
            name: {"layer": layer, **token} for name, token in zip(owners, tokens, strict=True)
        },
    )
    return {name: new[name] for name in owners}


def keep_change(ledger: Ledger, patch: WeightPatch, name: str) -> None:
    """Write down a patch of a single edit, whose change does not depend on other edits."""
    tensors: dict[str, Tensor] = {}
    for module, factor in patch.factors.items():
        assert isinstance(factor, LowRank)
        tensors[f"{module}.A"] = factor.A.contiguous()
        tensors[f"{module}.B"] = factor.B.contiguous()
    ledger.keep_values(
        patch.base["hash"],
        patch.method,
        {name: save(tensors)},
        config=patch.config,
        edits={name: patch.edits[0].id},
        details={name: {"templates": list(patch.templates), "statistics": dict(patch.statistics)}},
    )


def known_change(data: bytes, edit: Edit) -> dict[str, LowRank]:
    """The change of each module that was written down for one edit."""
    tensors = load(data)
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    return {
        module: LowRank(
            tensors[f"{module}.A"],
            tensors[f"{module}.B"],
            (edit.id,) * len(tensors[f"{module}.A"]),
        )
        for module in modules
    }


def change_name(base: str, method: str, config: Any, edit: Edit) -> str:
    """The fingerprint of all that the change of a single edit depends on."""
    content = [base, method, config, edit.prompt, edit.subject, edit.target]
    text = json.dumps(content, default=str, sort_keys=True)
    return f"change.{hashlib.sha256(text.encode()).hexdigest()[:32]}.{edit.id}"


def layer_of(patch: WeightPatch) -> int:
    """The block at which a patch's values stand."""
    layers = patch.config.get("layers")
    return int(layers[-1] if layers is not None else patch.config["layer"])


def patch_hash(patch: Patch) -> str:
    """A hash of what a patch does: its content to the last bit, for which base and edits."""
    digest = hashlib.sha256(str(patch.base.get("hash")).encode())
    for edit in sorted(edit.id for edit in patch.edits):
        digest.update(json.dumps(edit).encode())
    for name, matrices in sorted(_content(patch).items()):
        digest.update(name.encode())
        for matrix in matrices:
            digest.update(str(tuple(matrix.shape)).encode())
            digest.update(matrix.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(patch, MemoryPatch):
        digest.update(json.dumps([patch.kind, patch.details], sort_keys=True).encode())
    return digest.hexdigest()


def _content(patch: Patch) -> dict[str, Sequence[Tensor]]:
    """The tensors of a patch by name."""
    if isinstance(patch, MemoryPatch):
        return {name: [tensor] for name, tensor in patch.tensors.items()}
    assert isinstance(patch, WeightPatch)
    return {module: factor.matrices() for module, factor in patch.factors.items()}


def _lookups(tokenizer: Any, edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Where each edit's key is read: the token's text and position in the bare prompt."""
    encoded = encode(
        tokenizer, [edit.text for edit in edits], [edit.subject_span for edit in edits]
    )
    assert encoded.lookup is not None
    return [
        {"position": at, "token": tokenizer.decode([ids[at]])}
        for ids, at in zip(encoded.input_ids.tolist(), encoded.lookup.tolist(), strict=True)
    ]
