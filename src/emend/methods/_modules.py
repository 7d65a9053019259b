"""Memories that change what one module returns, from the tokens where prompts end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from emend.models import HookAttachment
from emend.models.passes import Batch
from emend.models.wrapping import find_module
from emend.patches import MemoryPatch


class ModuleAttachment(HookAttachment):
    """A hook on the module that the patch's details name.

    Raises:
        InvalidInput: The model has no such module.
    """

    def __init__(self, patch: MemoryPatch, model: nn.Module) -> None:
        self.module = find_module(model, patch.details["module"])
        super().__init__(patch, model)

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """See `Attachment.hooks`."""
        yield from super().hooks(model)
        yield self.module.register_forward_hook(self._hook)

    @abstractmethod
    def changed(self, batch: Batch, given: Tensor, output: Tensor) -> Tensor | None:
        """Return the module's output as the memory changes it, or None where it changes nothing.

        Args:
            batch: What the model reads.
            given: (B, T, in), the module's input in this pass.
            output: (B, T, out), its own output.
        """

    def _hook(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        batch = self.batch
        if batch is None:
            return None
        given, own = (
            each.reshape(len(batch.ends), -1, each.shape[-1]) for each in (args[0], output)
        )
        changed = self.changed(batch, given, own)
        return None if changed is None else changed.reshape(output.shape)
