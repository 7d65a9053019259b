"""What was solved for each edit, between the tensors of a method and the bytes of a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from emend import _identity
from emend.editing import subject_keys
from emend.editing.value_cache import edit_of, settings_content
from emend.edits import Edit, group_of
from emend.ledger import Ledger
from emend.methods import Method
from emend.models import ModelView, encode, model_fingerprint, tokens_fingerprint
from emend.patches import LowRank, MemoryPatch, Patch, WeightPatch

BARE = ["{}"]

NEAR = 0.95
"""Cosine of two keys from which on their edits are shown."""


def known_values(ledger: Ledger, base: str, method: str) -> dict[str, Tensor]:
    """Load the values optimised for a method on a base model, by name."""
    return {name: load(data)["value"] for name, data in ledger.values(base, method).items()}


def known_keys(ledger: Ledger, patch: Patch) -> dict[str, Tensor]:
    """Find the key of each edit of a patch, (inner,) float32, by the edit's id.

    Only the values that the patch itself was built from are looked up. What the ledger keeps of
    other layers, settings or precisions has keys of another space.
    """
    if not isinstance(patch, WeightPatch):
        return {}
    names = {name: edit for name in patch.state if (edit := edit_of(name)) is not None}
    values = ledger.values(str(patch.base.get("hash")), patch.method, names)
    found = {names[name]: load(data) for name, data in values.items()}
    return {edit: tensors["key"] for edit, tensors in found.items() if "key" in tensors}


def keep_values(
    ledger: Ledger, view: ModelView, tokenizer: Any, patch: WeightPatch, known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Write down the values of a patch that are new, each with its key and its lookup token.

    Returns:
        The new values by name.
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
        edits={name: group_of(edit) for name, edit in zip(owners, edits, strict=True)},
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
        edits={name: group_of(patch.edits[0])},
        details={name: {"templates": list(patch.templates), "statistics": dict(patch.statistics)}},
    )


def known_change(data: bytes, edit: Edit) -> dict[str, LowRank]:
    """Load the change of each module that was stored for one edit."""
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


def change_names(
    view: ModelView, tokenizer: Any, method: Method, config: Any, edits: Sequence[Edit]
) -> list[str]:
    """Name the change of each edit by all that it depends on.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        method: A method whose changes do not depend on other edits.
        config: Its settings.
        edits: The edits.
    """
    common = {
        "model": model_fingerprint(view.model),
        "tokenizer": tokens_fingerprint(view.model, tokenizer),
        "method": [method.name, method.version],
        "settings": settings_content(config, view, tokenizer),
    }
    keys = [
        _identity.key("single change", **common, request=[edit.prompt, edit.subject, edit.target])
        for edit in edits
    ]
    return [f"change.{key}.{edit.id}" for key, edit in zip(keys, edits, strict=True)]


def layer_of(patch: WeightPatch) -> int:
    """Return the layer of a patch's target values."""
    layers = patch.config.get("layers")
    return int(layers[-1] if layers is not None else patch.config["layer"])


def patch_hash(patch: Patch) -> str:
    """Fingerprint a patch: its content to the last bit, its base and its edits."""
    return _identity.key(
        "patch",
        base=patch.base.get("hash"),
        edits=sorted(edit.id for edit in patch.edits),
        content=_content(patch),
        memory=[patch.method, patch.details] if isinstance(patch, MemoryPatch) else None,
    )


class Similar(NamedTuple):
    """Two edits about different subjects whose keys are nearly the same.

    Attributes:
        left: Id of the one.
        right: Id of the other.
        cosine: Of their keys, at most 1.
    """

    left: str
    right: str
    cosine: float


def similar(
    edits: Sequence[Edit], keys: Mapping[str, Tensor], near: float = NEAR
) -> tuple[Similar, ...]:
    """Find pairs of edits whose keys can hardly be distinguished, the nearest first.

    What is written at one key shows at the other: the two edits, though about different subjects,
    are in part averaged. Edits of one subject are meant to share a key and are left out.

    Args:
        edits: The edits.
        keys: Key of each edit, (inner,), by id; edits without one are left out.
        near: Cosine from which on a pair is given.
    """
    known = [edit for edit in edits if edit.id in keys]
    if len(known) < 2:
        return ()
    matrix = torch.stack([keys[edit.id].double() for edit in known])  # (E, inner)
    matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp(min=1e-30)
    cosines = (matrix @ matrix.T).triu(1)  # (E, E)
    found = [
        Similar(known[left].id, known[right].id, float(cosines[left, right]))
        for left, right in (cosines >= near).nonzero().tolist()
        if known[left].subject != known[right].subject
        and group_of(known[left]) != group_of(known[right])
    ]
    return tuple(sorted(found, key=lambda pair: -pair.cosine))


def _content(patch: Patch) -> dict[str, Sequence[Tensor]]:
    """Return the tensors of a patch by name."""
    if isinstance(patch, MemoryPatch):
        return {name: [tensor] for name, tensor in patch.tensors.items()}
    assert isinstance(patch, WeightPatch)
    return {module: factor.matrices() for module, factor in patch.factors.items()}


def _lookups(tokenizer: Any, edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Locate where each edit's key is read: the token's text and position in the bare prompt."""
    encoded = encode(
        tokenizer, [edit.text for edit in edits], [edit.subject_span for edit in edits]
    )
    assert encoded.lookup is not None
    return [
        {"position": at, "token": tokenizer.decode([ids[at]])}
        for ids, at in zip(encoded.input_ids.tolist(), encoded.lookup.tolist(), strict=True)
    ]
