"""Which model a patch was made for: its name, its shape and a hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models.endpoint import Endpoint
from emend.models.placing import quantisation_of, weights_of

SAMPLED = 4096
"""Elements of each parameter that enter the hash."""


def model_hash(model: nn.Module) -> str:
    """A hash of the model's weights that does not depend on device, offloading or float precision.

    Every parameter enters with its name, shape and 4,096 evenly spaced elements rounded to
    bfloat16, so that a 7B model takes well under a second, and the same checkpoint loaded in
    float32 and in bfloat16 has one hash. Fine-tuning or editing weights in place changes it, and
    so does quantising them: the model then computes with other weights. Float16 rounds otherwise
    than bfloat16: only a checkpoint that is stored in float16 has the same hash in all three.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, weight in weights_of(model):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(_sample(weight))
    return digest.hexdigest()[:16]


def _sample(tensor: Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    # An odd step does not fall into step with a matrix's (usually even) row length.
    step = max(tensor.numel() // SAMPLED, 1) | 1
    values = tensor.reshape(-1)[::step][: SAMPLED + 1]
    if values.is_floating_point():
        values = values.to(torch.bfloat16).view(torch.int16)
    return values.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def describe_base(model: nn.Module) -> dict[str, Any]:
    """What a patch keeps of the model that it was made for.

    Returns:
        JSON-able: ``name``, ``hash``, ``architecture``, ``model_type``, ``depth`` (blocks),
        ``width``, ``fan_in_fan_out`` (whether linear layers are stored transposed), and where
        linear layers are quantised ``quantised`` ("4-bit", "8-bit").
    """
    if isinstance(model, Endpoint):  # no weights to know it by: a patch for it fits any model
        return {"name": model.name, "architecture": "Endpoint"}
    config = getattr(model, "config", None)
    # A GPT-2-like model uses Conv1D for all linear layers, so that one flag serves for all.
    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    quantised = quantisation_of(model)
    return {
        "name": str(getattr(config, "_name_or_path", "") or ""),
        "hash": model_hash(model),
        "architecture": type(model).__name__,
        "model_type": str(getattr(config, "model_type", "") or ""),
        "depth": getattr(config, "num_hidden_layers", None),
        "width": getattr(config, "hidden_size", None),
        "fan_in_fan_out": transposed,
        **({"quantised": quantised} if quantised else {}),
    }


def check_base(model: nn.Module, base: Mapping[str, Any], *, allow_other_base: bool) -> None:
    """Refuse a model other than the one that a patch was made for.

    A patch that states no hash fits any model whose modules fit.

    Raises:
        InvalidInput: The model's weights have another hash.
    """
    expected = base.get("hash")
    if allow_other_base or not expected:
        return
    found = model_hash(model)
    if found != expected:
        name = base.get("name") or base.get("architecture") or "another model"
        raise InvalidInput(
            f"the model's weights have hash {found} but the patch was made for {name} with hash "
            f"{expected}: load that model, or pass allow_other_base=True"
        )
