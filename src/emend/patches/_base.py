"""The model that a patch was made for: its description, and whether another one fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models.endpoint import Endpoint
from emend.models.fingerprints import describe_config, weights_hash
from emend.models.placing import quantisation_of
from emend.models.wrapping import adapters_of, find_plain, unwrapped

if TYPE_CHECKING:
    from emend.patches._factors import Factor


def describe_base(model: nn.Module, weights: str | None = None) -> dict[str, Any]:
    """Describe the model that a patch is made for.

    Args:
        model: The model.
        weights: Its hash, where it is known already or the model is without weights; by default
            `weights_hash` of the model.

    Returns:
        JSON-able: ``name``, ``hash`` (see `weights_hash`), ``config`` (the fields that the model
        computes with), ``architecture``, ``model_type``, ``depth`` (number of layers), ``width``
        (hidden size), ``fan_in_fan_out`` (whether linear layers are stored transposed), and
        ``quantised`` ("4-bit", "8-bit") where linear layers are. All of it describes the plain
        model; PEFT adapters around its layers that act are named in ``adapters``.
    """
    if isinstance(model, Endpoint):  # no weights to identify it by: a patch for it fits any model
        return {"name": model.name, "architecture": "Endpoint"}
    config = getattr(model, "config", None)
    # A GPT-2-like model uses Conv1D for all linear layers, so that one flag serves for all.
    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    quantised = quantisation_of(model)
    return {
        "name": str(getattr(config, "_name_or_path", "") or ""),
        "hash": weights or weights_hash(model),
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

    Configuration fields that only one of them has do not count: another version of transformers
    may have added them. A description without a hash fits any model.

    Returns:
        The expected and the found value, each as a phrase ("weights with hash ...",
        "rms_norm_eps=1e-06"); None if both describe one model.
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
        base: The patch's own model, as `describe_base` describes it.
        allow_other_base: Accept another one; None where the caller has no such choice, so that
            the message does not offer it.

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


def find_modules(
    model: nn.Module, factors: Mapping[str, Factor], base: Mapping[str, Any]
) -> dict[str, nn.Module]:
    """Find the linear modules that a patch changes, by their names in the plain model.

    Args:
        model: The model.
        factors: The change of each module.
        base: The patch's own model, for messages.

    Raises:
        InvalidInput: A module is missing, is no linear layer, or its weight has another shape.
    """
    name = base.get("name") or base.get("architecture")
    remedy = f"apply it to the model that it was made for{f' ({name})' if name else ''}"
    found = {name: find_plain(model, name) for name in factors}
    missing = [name for name, module in found.items() if module is None]
    if missing:
        count = "the module" if len(factors) == 1 else f"{len(missing)} of {len(factors)} modules"
        more = ", ..." if len(missing) > 1 else ""
        raise InvalidInput(
            f"{type(model).__name__} lacks {count} that the patch changes ({missing[0]}{more}), "
            f"expected all of them: {remedy}"
        )
    modules = {name: module for name, module in found.items() if module is not None}
    for name, module in modules.items():
        _check_fits(name, module, factors[name].shape, remedy)
    return modules


def _check_fits(name: str, module: nn.Module, expected: tuple[int, int], remedy: str) -> None:
    kind = type(module).__name__
    weight = getattr(module, "weight", None)
    # Quantised layers pack their weight, so their declared sizes count.
    shape = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if kind == "Conv1D":
        shape = module.get_parameter("weight").shape[::-1]
    if not isinstance(weight, Tensor) or None in shape:
        raise InvalidInput(
            f"module {name} is a {kind}, expected a linear layer, whose weight a patch can "
            f"change: {remedy}"
        )
    if tuple(shape) != expected:
        raise InvalidInput(
            f"module {name} has shape {tuple(shape)} (out, in) but the patch changes {expected}: "
            f"{remedy}"
        )
