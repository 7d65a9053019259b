"""The modules of a model that a memory acts on."""

from __future__ import annotations

from torch import nn

from emend.errors import InvalidInput
from emend.models.wrapping import find_plain


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module that a patch acts on, by its name in the plain model.

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
