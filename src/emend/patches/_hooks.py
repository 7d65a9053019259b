"""How a weight patch acts: forward hooks that add what the changed weights would add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput
from emend.models.attachments import Attachment
from emend.models.hooks import plus_change
from emend.models.placing import at_least_float32, device_of, dtype_of
from emend.models.wrapping import find_plain

if TYPE_CHECKING:
    from emend.patches._factors import Factor
    from emend.patches._patch import Patch


class WeightAttachment(Attachment):
    """One weight patch on one model: the hooks that add its changes."""

    def __init__(self, patch: Patch, model: nn.Module, factors: Mapping[str, Factor]) -> None:
        super().__init__(patch)
        modules = find_modules(model, factors, patch.base)
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


def find_modules(
    model: nn.Module, factors: Mapping[str, Factor], base: Mapping[str, Any]
) -> dict[str, nn.Module]:
    """Find the linear modules that factors change, by their names in the plain model.

    Args:
        model: The model.
        factors: The change of each module.
        base: What the patch states of its own model, for messages.

    Raises:
        InvalidInput: A module is not there, is no linear layer, or its weight has another shape.
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
    # Quantised layers pack their weight; what they say of themselves counts there.
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
