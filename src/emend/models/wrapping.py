"""Models inside wrappers: PEFT's, torch.compile's; and what their modules are called without them.

A patch names the modules of the plain model, as its checkpoint does, so that it fits the model
with and without adapters around it:

    base_model.model.model.layers.3.mlp.down_proj.base_layer    with PEFT
    _orig_mod.model.layers.3.mlp.down_proj                      compiled
    model.layers.3.mlp.down_proj                                plain
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from emend._tensors import Stored
from emend.errors import InvalidInput
from emend.models.placing import stored_weights

ORIGINALS = ("base_layer", "original_module", "_orig_mod")
"""Children that hold what a wrapper of one module is around; its other children are its own."""


STATE = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")
"""What an adapter's layer tells of how it acts now."""


def unwrapped(model: Any) -> Any:
    """Return the model of transformers inside all wrappers; adapters stay in its layers."""
    while True:
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # pyright: ignore[reportPrivateUsage] (OptimizedModule)
        elif hasattr(type(model), "get_base_model") and hasattr(type(model), "load_adapter"):
            model = model.get_base_model()
        else:
            return model


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give every module of the plain model with its name there; an adapter's own are left out."""
    for _, name, module in _walk(unwrapped(model), "", ""):
        yield name, module


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor | Stored]]:
    """Give the weights of the plain model by their names there, as `stored_weights` does.

    Where an adapter was merged into the weights, they are the merged ones.
    """
    inner = unwrapped(model)
    names = {path: name for path, name, _ in _walk(inner, "", "")}

    def plain(full: str) -> str | None:
        path, _, own = full.rpartition(".")
        name = names.get(path)
        return None if name is None else f"{name}.{own}" if name else own

    return stored_weights(inner, plain)


def find_plain(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module that is called ``name`` in the plain model, or None."""
    module: nn.Module = unwrapped(model)
    for part in name.split("."):
        child = dict(module.named_children()).get(part)
        if child is None:
            return None
        module = _inner(child)
    return module


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the module that a patch acts on, by its name in the plain model.

    Raises:
        InvalidInput: There is none of that name.
    """
    module = find_plain(model, name)
    if module is None:
        raise InvalidInput(
            f"{type(model).__name__} has no module {name} that the patch acts on: "
            "apply it to the model that it was made for"
        )
    return module


def adapters_state(model: nn.Module) -> list[Any]:
    """Describe, for the key of a cache, which adapters act in which layers, and how much."""
    return [
        [name, *(_jsonable(getattr(one, field, None)) for field in STATE)]
        for name, one in _adapted_layers(model)
    ]


def _jsonable(value: Any) -> Any:
    return (
        {str(key): float(one) for key, one in value.items()} if isinstance(value, dict) else value
    )


def is_adapted(model: nn.Module) -> bool:
    """Return whether some layers are wrapped in adapters, whether or not these act now."""
    return any(True for _ in _adapted_layers(model))


def _adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in unwrapped(model).named_modules():
        if hasattr(module, "disable_adapters") and _inner(module) is not module:
            yield name, module


def adapters_of(model: nn.Module) -> list[str]:
    """Describe the adapters of PEFT that act in a model, each as ``NAME (KIND)``."""
    configs: Any = getattr(model, "peft_config", None) or {}
    layers = [one for _, one in _adapted_layers(model) if not one.disable_adapters]
    active = {name for one in layers for name in one.active_adapters}
    active |= {name for name, one in configs.items() if getattr(one, "is_prompt_learning", False)}
    kinds = {name: getattr(one, "peft_type", "unknown") for name, one in configs.items()}
    return [f"{n} ({getattr(kinds[n], 'value', kinds[n])})" for n in kinds if n in active]


def _walk(module: nn.Module, path: str, name: str) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield every plain module with its path here and its name in the plain model."""
    for original in ORIGINALS:
        child = getattr(module, original, None)
        if isinstance(child, nn.Module):
            yield from _walk(child, f"{path}.{original}" if path else original, name)
            return
    yield path, name, module
    for own, child in module.named_children():
        yield from _walk(child, f"{path}.{own}" if path else own, f"{name}.{own}" if name else own)


def _inner(module: nn.Module) -> nn.Module:
    for original in ORIGINALS:
        child = getattr(module, original, None)
        if isinstance(child, nn.Module):
            return _inner(child)
    return module
