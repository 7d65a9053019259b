"""The modules of a model that a memory acts on."""

from __future__ import annotations

from torch import nn

from emend.errors import InvalidInput


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module of a model that a patch acts on.

    Raises:
        InvalidInput: There is none of that name.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise InvalidInput(
            f"{type(model).__name__} has no module {name} that the patch acts on: "
            "apply it to the model that it was made for"
        ) from None
