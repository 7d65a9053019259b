"""Where a model's weights are: on one device, split over several, offloaded, or quantised.

Models loaded with ``device_map="auto"`` keep each module on a device of its own, and what fits on
none is *offloaded* by accelerate: the parameter is on the ``meta`` device, without values, except
while its module runs, when a hook of accelerate fetches the values from memory or disk. All that
is asked of a weight outside of a forward pass is asked here.

Quantised weights (bitsandbytes) are packed numbers beside their scales. They are never read as a
matrix: modules are run, and hashes take what a checkpoint would hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput

QUANTISED = {"Params4bit": "4-bit", "Int8Params": "8-bit"}
"""Kinds of parameter by the names of their classes: bitsandbytes need not be installed."""


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: its inputs belong there, and what it puts out is there.

    An offloaded module computes where accelerate brings its weights. A module without weights
    of its own, or of its children, computes wherever its inputs are; the CPU is given then.
    """
    for part in module.modules():
        for hook in _hooks(part):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device(device)
        parameter = next(part.parameters(recurse=False), None)
        if parameter is not None and parameter.device.type != "meta":
            return parameter.device
    return torch.device("cpu")


def dtype_of(module: nn.Module) -> torch.dtype | None:
    """The floating dtype that a module computes in; None where it has no floating weight."""
    found = (parameter.dtype for parameter in module.parameters())
    return next((dtype for dtype in found if dtype.is_floating_point), None)


def weight_of(module: nn.Module, name: str = "weight") -> Tensor:
    """A module's own weight with its values, fetched for the purpose where it is offloaded.

    Args:
        module: The module.
        name: Of the parameter.

    Returns:
        The parameter itself, or where it is offloaded a copy on the CPU that may be released.

    Raises:
        InvalidInput: The weight is quantised, or it is on the meta device and nothing tells
            where its values are.
    """
    parameter: Tensor = module.get_parameter(name)
    kind = quantisation(module)
    if kind is not None:
        raise InvalidInput(
            f"the weights of this {type(module).__name__} are quantised ({kind}), expected a "
            "matrix: load the model without load_in_4bit and load_in_8bit"
        )
    if parameter.device.type != "meta":
        return parameter
    return _fetched(parameter, name, ((module, name),))


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by its name, with its values; those that are tied once.

    An offloaded one is fetched when its turn comes, so that one at a time is in memory. What a
    checkpoint keeps beside quantised weights (their scales) is given after them.
    """
    owners = dict(model.named_modules())
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        path, _, own = name.rpartition(".")
        owner = owners[path]
        if type(parameter).__name__ in QUANTISED:
            for key, value in _as_saved(owner, own):
                yield f"{path}.{key}", value
        elif parameter.device.type != "meta":
            yield name, parameter.detach()
        elif name not in tied:  # offloading makes two of a parameter that two modules share
            yield name, _fetched(parameter, name, _holders(owners, path, own))


def quantisation(module: nn.Module) -> str | None:
    """How the module's own weight is quantised ("4-bit", "8-bit"), or None."""
    weight = getattr(module, "weight", None)
    return None if weight is None else QUANTISED.get(type(weight).__name__)


def quantisation_of(model: nn.Module) -> str | None:
    """How the model's linear layers are quantised, or None."""
    found = (quantisation(module) for module in model.modules())
    return next((kind for kind in found if kind is not None), None)


def _hooks(module: nn.Module) -> Iterator[Any]:
    """What accelerate hung on a module, one hook or several."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


def _holders(
    owners: Mapping[str, nn.Module], path: str, own: str
) -> Iterator[tuple[nn.Module, str]]:
    """The module of a parameter and all that it is inside of, with the parameter's name there."""
    parts = path.split(".") if path else []
    for count in range(len(parts), -1, -1):
        yield owners[".".join(parts[:count])], ".".join([*parts[count:], own])


def _fetched(parameter: Tensor, name: str, holders: Any) -> Tensor:
    for holder, key in holders:
        for hook in _hooks(holder):
            values = getattr(hook, "weights_map", None)
            if values is not None and key in values:
                return values[key].detach().to(device="cpu", dtype=parameter.dtype)
    raise InvalidInput(
        f"parameter {name} is on the meta device and no hook of accelerate holds its values, "
        "expected weights: load the model with emend.load or from_pretrained"
    )


def _as_saved(owner: nn.Module, own: str) -> Iterator[tuple[str, Tensor]]:
    """A quantised weight as a checkpoint holds it: packed numbers, then their scales.

    The library packs weights otherwise for some processors, and keeps scales here or there before
    and after the first pass; in a checkpoint they are always alike.
    """
    for key, value in sorted(owner.state_dict().items()):
        if key.startswith(own) or key == "SCB":
            yield key, value.detach()
