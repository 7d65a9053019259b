"""How a weight patch acts: forward hooks that add what the changed weights would add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models._hooks import plus_change
from emend.models.attachments import Attachment
from emend.models.placing import at_least_float32, device_of, dtype_of
from emend.models.wrapping import find_plain

if TYPE_CHECKING:
    from emend.patches._factors import Factor
    from emend.patches._patch import Patch


class WeightAttachment(Attachment):
    """One weight patch on one model: the hooks that add its changes."""

    def __init__(self, patch: Patch, model: nn.Module, factors: Mapping[str, Factor]) -> None:
        super().__init__(patch)
        modules = {name: find_module(model, name, factor) for name, factor in factors.items()}
        self._changes = [
            (modules[name], _AddedChange(self, factor, modules[name]))
            for name, factor in factors.items()
        ]

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        for module, change in self._changes:
            yield module.register_forward_hook(change)


class _AddedChange:
    """The hook of one module: ``y + x A^T B^T`` (or ``y + x delta^T``), in float32 or wider."""

    def __init__(self, attachment: WeightAttachment, factor: Factor, module: nn.Module) -> None:
        self._attachment = attachment
        place, dtype = device_of(module), at_least_float32(dtype_of(module))
        # Copies made under inference mode could not take part in a backward pass later.
        with torch.inference_mode(False):
            self._matrices = tuple(matrix.to(place, dtype) for matrix in factor.matrices())

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not self._attachment.active:
            return None
        return plus_change(inputs[0], output, self._matrices)


def find_module(model: nn.Module, name: str, factor: Factor) -> nn.Module:
    """The linear module called ``name`` in the plain model, checked to fit the change.

    Raises:
        InvalidInput: There is no such module, or its weight has another shape.
    """
    module = find_plain(model, name)
    if module is None:
        raise InvalidInput(
            f"{type(model).__name__} has no module {name} that the patch changes: "
            "apply it to the model that it was made for"
        )
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise InvalidInput(
            f"module {name} is a {type(module).__name__} without a weight matrix, expected a "
            "linear layer: apply the patch to the model that it was made for"
        )
    shape = tuple(weight.shape)
    if type(module).__name__ == "Conv1D":
        shape = shape[::-1]
    # Quantised layers pack their weight; what they say of themselves counts there.
    shape = (
        getattr(module, "out_features", shape[0]),
        getattr(module, "in_features", shape[1]),
    )
    if shape != factor.shape:
        raise InvalidInput(
            f"module {name} has shape {shape} (out, in) but the patch changes {factor.shape}: "
            "apply it to the model that it was made for"
        )
    return module
