"""Names of a model's parts, for architectures whose structure is not found by watching them run.

A package registers them for a model type under the entry-point group `emend.architectures`; see
docs/adding-an-architecture.md. Arguments of `ModelView` name them for one model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from torch import nn

from emend._registry import Registry
from emend.errors import UnsupportedModel

Names = str | tuple[str, ...]
"""A dotted name, or several of which the first that is there counts (layers may differ)."""


@dataclass(frozen=True)
class Architecture:
    """The names of the parts of one kind of model; what is None is found by watching it run.

    Attributes:
        layers: The list of its layers, from the model.
        attention: The module that mixes tokens, from a layer ("mixer.attention").
        mlp: The MLP, from a layer. The last projection to the hidden size that runs inside it is
            its down-projection.
        norm: The norm between the last layer and the head, from the model.
    """

    layers: Names | None = None
    attention: Names | None = None
    mlp: Names | None = None
    norm: Names | None = None

    def part(self, name: str, owner: nn.Module) -> nn.Module | None:
        """Find a named part in the model or layer that holds it; None where it is not named.

        Raises:
            UnsupportedModel: It is named, and is not there.
        """
        names: Names | None = getattr(self, name)
        if names is None:
            return None
        given = (names,) if isinstance(names, str) else names
        for one in given:
            try:
                return owner.get_submodule(one)
            except AttributeError:
                continue
        children = ", ".join(child for child, _ in owner.named_children())
        raise UnsupportedModel(
            f"{type(owner).__name__} has no submodule {' or '.join(given)}, which is named as its "
            f"{name}: correct the name (it holds {children or 'no modules'})"
        )


def architecture_of(model: nn.Module, **given: Names | None) -> Architecture:
    """Join the names that are given with those registered for the model's type.

    Args:
        model: The model.
        given: Fields of `Architecture`; they come before what is registered.

    Raises:
        BrokenFile: What a package registered is no `Architecture`, or cannot be imported.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    registered = _registered(str(model_type)) if model_type else Architecture()
    named: dict[str, Any] = {one.name: getattr(registered, one.name) for one in fields(registered)}
    named |= {name: value for name, value in given.items() if value is not None}
    return Architecture(**named)


def _registered(model_type: str) -> Architecture:
    registry = _registry()
    return registry.get(model_type) if model_type in registry else Architecture()


@cache
def _registry() -> Registry[Architecture]:
    return Registry(
        "architecture", (), "emend.architectures", "emend.models.architecture:Architecture"
    )
