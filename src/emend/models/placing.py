"""Read weights wherever they are: on one device, on several, offloaded, or quantised.

Models loaded with ``device_map="auto"`` keep each module on a device of its own, and what fits on
none is *offloaded* by accelerate: the parameter is on the ``meta`` device, without values, except
while its module runs, when a hook of accelerate fetches the values from memory or disk. All that
is asked of a weight outside of a forward pass is asked here.

Quantised weights (bitsandbytes) are packed numbers with scales. They are never read as a
matrix: modules are run, and hashes take what a checkpoint would hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from emend._tensors import Stored
from emend.errors import InvalidInput, UnsupportedModel

QUANTISED = {"Params4bit": "4-bit", "Int8Params": "8-bit"}
"""Kinds of parameter by the names of their classes: bitsandbytes need not be installed."""


PACKS = "support_avx512bf16_for_cpu"
"""The attribute by which a layer of bitsandbytes decides to pack its weights for the processor."""


def device_of(module: nn.Module) -> torch.device:
    """Return the device that a module computes on: of its inputs and outputs.

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


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """List the devices that modules with weights of their own compute on, in the modules' order."""
    owners = (
        part for part in model.modules() if next(part.parameters(recurse=False), None) is not None
    )
    return tuple(dict.fromkeys(device_of(part) for part in owners))


def at_least_float32(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype to add and sum in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is where it is float64."""
    return tensor.to(at_least_float32(tensor.dtype))


def dtype_of(module: nn.Module) -> torch.dtype | None:
    """Return the floating dtype that a module computes in; None where it has no floating weight."""
    found = (parameter.dtype for parameter in module.parameters())
    return next((dtype for dtype in found if dtype.is_floating_point), None)


def weight_of(module: nn.Module, name: str = "weight") -> Tensor:
    """Return a module's own weight with its values, fetched where it is offloaded.

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
    found = _found(parameter, name, ((module, name),))
    return found.read() if isinstance(found, Stored) else found


def weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by its name, with its values; see `stored_weights`.

    An offloaded one is fetched when its turn comes, so that one at a time is in memory.
    """
    for name, weight in stored_weights(model):
        yield name, weight.read() if isinstance(weight, Stored) else weight


def stored_weights(
    model: nn.Module, rename: Callable[[str], str | None] = str
) -> Iterator[tuple[str, Tensor | Stored]]:
    """Yield every parameter, and every buffer that a checkpoint keeps, by name; tied ones once.

    What is offloaded to files is not read. What a checkpoint stores with quantised weights (their
    scales) is given after them.

    Args:
        model: The model.
        rename: Gives the name to use for that of a parameter or buffer; None leaves it out.
    """
    owners = dict(model.named_modules())
    for name, full, parameter in _untied(model, rename):
        path, _, own = full.rpartition(".")
        if type(parameter).__name__ in QUANTISED:
            check_differentiable(owners[path])
            for key, value in _packed(owners[path], own):
                yield f"{name.rpartition('.')[0]}.{key}", value
        elif parameter.device.type != "meta":
            yield name, parameter.detach()
        else:
            yield name, _found(parameter, full, _holders(owners, path, own))


def _untied(model: nn.Module, rename: Callable[[str], str | None]) -> list[tuple[str, str, Tensor]]:
    """Parameters and persistent buffers by new and own name, those of one storage once.

    Of several names the first is taken that is not tied to another by the model's own account,
    so that the order of registration does not count.
    """
    passing = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in cast("set[str]", module.__dict__["_non_persistent_buffers_set"])
    }
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    buffers = model.named_buffers(remove_duplicate=False)
    given: list[tuple[str, Tensor]] = [
        *model.named_parameters(remove_duplicate=False),
        *(item for item in buffers if item[0] not in passing),
    ]
    named = [(name, full, one) for full, one in given if (name := rename(full)) is not None]
    found: dict[Hashable, tuple[str, str, Tensor]] = {}
    for name, full, tensor in sorted(named, key=lambda item: (item[0] in tied, item[0])):
        if tensor.device.type == "meta" and name in tied:
            continue  # offloading makes two of a parameter that two modules share
        found.setdefault(_storage_of(tensor), (name, full, tensor))
    return sorted(found.values(), key=lambda item: item[0])


def _storage_of(tensor: Tensor) -> Hashable:
    """Return a key that is equal for tensors that are the same numbers in memory."""
    if tensor.device.type == "meta" or not tensor.numel() or type(tensor).__name__ in QUANTISED:
        return id(tensor)
    if not tensor.data_ptr():  # it wraps other tensors (DTensor, torchao), and has no memory itself
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def keep_differentiable(model: nn.Module) -> None:
    """Have 4-bit layers on a CPU stay as they are when they first run.

    On processors with AVX512-BF16, bitsandbytes packs the weights anew in the first pass without
    gradients, and from then on none flow through the layer, nor can its weights be read.
    """
    for module in model.modules():
        if _may_pack(module):
            setattr(module, PACKS, False)


def check_differentiable(model: nn.Module) -> None:
    """Refuse 4-bit layers on a CPU that gradients do not flow through; changes nothing.

    Raises:
        UnsupportedModel: There are some, or there will be after a pass.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        packed = getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False)
        if packed or _may_pack(module):
            raise UnsupportedModel(
                "bitsandbytes packs 4-bit weights for inference on this CPU, and no gradient "
                "flows through them, expected weights that it leaves alone: load the model with "
                "emend.load(..., load_in_4bit=True)"
            )


def _may_pack(module: nn.Module) -> bool:
    if quantisation(module) != "4-bit" or not getattr(module, PACKS, False):
        return False
    return device_of(module).type == "cpu"


def quantisation(module: nn.Module) -> str | None:
    """Return how the module's own weight is quantised ("4-bit", "8-bit"), or None."""
    weight = getattr(module, "weight", None)
    return None if weight is None else QUANTISED.get(type(weight).__name__)


def quantisation_of(model: nn.Module) -> str | None:
    """Return how the model's linear layers are quantised, or None."""
    found = (quantisation(module) for module in model.modules())
    return next((kind for kind in found if kind is not None), None)


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Yield accelerate's hooks on a module."""
    hook = getattr(module, "_hf_hook", None)
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))


def _holders(
    owners: Mapping[str, nn.Module], path: str, own: str
) -> Iterator[tuple[nn.Module, str]]:
    """Yield the module of a parameter and all around it, with the parameter's name in each."""
    parts = path.split(".") if path else []
    for count in range(len(parts), -1, -1):
        yield owners[".".join(parts[:count])], ".".join([*parts[count:], own])


def _found(parameter: Tensor, name: str, holders: Any) -> Tensor | Stored:
    """Find the values of an offloaded parameter: in memory, or where they can be read."""
    for holder, key in holders:
        for hook in _hooks(holder):
            values = getattr(hook, "weights_map", None)
            if values is not None and key in values:
                read = partial(_read, values, key, parameter.dtype)
                place = _file_of(values, key)
                return read() if place is None else Stored(read, (*place, parameter.dtype))
    raise InvalidInput(
        f"parameter {name} is on the meta device and no hook of accelerate holds its values, "
        "expected weights: load the model with emend.load or from_pretrained"
    )


def _read(values: Any, key: str, dtype: torch.dtype) -> Tensor:
    return values[key].detach().to(device="cpu", dtype=dtype)


def _file_of(values: Any, key: str) -> tuple[Hashable, ...] | None:
    """Find a weight's file on disk, and that file's state; None for one in memory."""
    name = getattr(values, "prefix", "") + key
    loader = getattr(values, "dataset", values)
    about = getattr(loader, "index", {}).get(name)
    if about is None or name in getattr(loader, "state_dict", {}):
        return None
    file = about.get("safetensors_file") or os.path.join(loader.save_folder, f"{name}.dat")
    state = os.stat(file)
    return (
        *(str(file), about.get("weight_name", name)),
        *(state.st_ino, state.st_size, state.st_mtime_ns),
    )


def _packed(owner: Any, own: str) -> Iterator[tuple[str, Tensor]]:
    """Yield a quantised weight: its numbers, then their scales.

    Not by ``state_dict``: that of bitsandbytes 0.50 changes weights packed for a processor.
    """
    weight = getattr(owner, own)
    yield own, weight.detach()
    if type(weight).__name__ == "Int8Params":
        scales = getattr(weight, "SCB", None)  # moved on the first pass
        yield f"{own}.SCB", owner.state.SCB if scales is None else scales
        return
    for key, value in sorted(weight.quant_state.as_dict(packed=True).items()):
        yield f"{own}.{key}", value
