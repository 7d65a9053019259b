"""Which model a patch was made for: its name, shape and configuration, and a weights' hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from emend.errors import InvalidInput
from emend.models.endpoint import Endpoint
from emend.models.fingerprints import describe_config, weights_hash
from emend.models.placing import quantisation_of
from emend.models.wrapping import adapters_of, unwrapped


def describe_base(model: nn.Module) -> dict[str, Any]:
    """Describe the model that a patch is made for.

    Returns:
        JSON-able: ``name``, ``hash`` (see `weights_hash`), ``config`` (the fields that the model
        computes with), ``architecture``, ``model_type``, ``depth`` (blocks), ``width``,
        ``fan_in_fan_out`` (whether linear layers are stored transposed), and where linear layers
        are quantised ``quantised`` ("4-bit", "8-bit"). All of it is of the plain model, without
        the adapters of PEFT around its layers; those that act are named in ``adapters``.
    """
    if isinstance(model, Endpoint):  # no weights to know it by: a patch for it fits any model
        return {"name": model.name, "architecture": "Endpoint"}
    config = getattr(model, "config", None)
    # A GPT-2-like model uses Conv1D for all linear layers, so that one flag serves for all.
    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    quantised = quantisation_of(model)
    return {
        "name": str(getattr(config, "_name_or_path", "") or ""),
        "hash": weights_hash(model),
        "config": describe_config(model),
        "architecture": type(unwrapped(model)).__name__,
        "model_type": str(getattr(config, "model_type", "") or ""),
        "depth": getattr(config, "num_hidden_layers", None),
        "width": getattr(config, "hidden_size", None),
        "fan_in_fan_out": transposed,
        **({"quantised": quantised} if quantised else {}),
        **({"adapters": adapters} if (adapters := adapters_of(model)) else {}),
    }


def base_difference(
    expected: Mapping[str, Any], found: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Compare two descriptions of a base model.

    Fields of the configuration that only one of them has do not count: another version of
    transformers may have added them. What states no hash fits any model.

    Returns:
        What is expected and what is found, each as a phrase ("weights with hash ...",
        "rms_norm_eps=1e-06"); None where both are of one model.
    """
    hashes = expected.get("hash"), found.get("hash")
    if not all(hashes):
        return None
    if hashes[0] != hashes[1]:
        return f"weights with hash {hashes[0]}", f"weights with hash {hashes[1]}"
    left, right = expected.get("config") or {}, found.get("config") or {}
    for name in left:
        if name in right and left[name] != right[name]:
            return f"{name}={left[name]!r}", f"{name}={right[name]!r}"
    return None


def check_base(
    model: nn.Module, base: Mapping[str, Any], *, allow_other_base: bool | None = None
) -> None:
    """Refuse a model other than the one that a patch was made for; see `base_difference`.

    Args:
        model: The model.
        base: What the patch says of its own, as `describe_base` gives it.
        allow_other_base: Take another one all the same; None where the caller has no such choice,
            so that the message does not offer it.

    Raises:
        InvalidInput: The model's weights have another hash, or its configuration differs.
    """
    if allow_other_base or not base.get("hash"):
        return
    difference = base_difference(base, describe_base(model))
    if difference is not None:
        name = base.get("name") or base.get("architecture") or "another model"
        choice = "" if allow_other_base is None else ", or pass allow_other_base=True"
        raise InvalidInput(
            f"the model has {difference[1]} but the patch was made for {name} with "
            f"{difference[0]}: load that model{choice}"
        )
