"""Sums of k k^T for several layers, taken while the model runs, and kept half way.

Only the lower triangle is computed, in panels: a product of all would cost twice as much. A panel
of one batch is multiplied in the keys' precision (float32 for half-precision models) and added to
sums in that which was chosen, which stay on the layer's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import UnsupportedModel
from emend.keyvalue import _kept
from emend.keyvalue._windows import Batch, Position
from emend.models import ModelView
from emend.models._forward import evaluating
from emend.models._hooks import hooked, stopping
from emend.models.placing import device_of, widened

PANEL = 256
"""Rows of a panel, at least; at most 16 panels."""


class Sums:
    """Sums over the keys of some layers.

    Args:
        view: The model.
        layers: Blocks whose keys are wanted, counted from 0, each once.
        dtype: Of the sums.

    Attributes:
        matrices: For each layer (inner, inner), of which the lower triangle is right until
            `whole` has been called.
    """

    def __init__(self, view: ModelView, layers: Sequence[int], dtype: torch.dtype) -> None:
        self.view, self.layers, self.dtype = view, tuple(layers), dtype
        self.matrices = {
            layer: torch.zeros(view.inner(layer), view.inner(layer), dtype=dtype)
            for layer in layers
        }

    def run(self, batch: Batch) -> None:
        """Run a batch up to the last layer's keys, and add them to every layer's sums.

        Padding is not masked: in a causal model no token sees what is right of it, while rows of
        padding that see nothing give NaN in some models.
        """
        ids = batch.input_ids.to(device_of(self.view.embeddings))
        reached: set[int] = set()

        def taking(layer: int) -> Any:
            def take(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                self._add(layer, args[0], batch.real)
                reached.add(layer)

            return take

        model: Any = self.view.model
        with ExitStack() as stack:
            for layer in self.layers:
                down = self.view.down_projection(layer)
                stack.enter_context(hooked(down, taking(layer), before=True))
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(model))
            last = self.view.down_projection(max(self.layers))
            stack.enter_context(stopping(last, before=True))
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        if passed := sorted({*self.layers} - reached):
            raise UnsupportedModel(
                f"{type(model).__name__} runs without the down-projection of "
                f"{', '.join(f'layer {layer}' for layer in passed)}, so there are no keys to sum "
                "there: take other layers"
            )

    def _add(self, layer: int, keys: Tensor, real: Tensor | None) -> None:
        keys = keys.reshape(-1, keys.shape[-1])  # (tokens, inner)
        if real is not None:
            keys = keys[real.to(keys.device)]
        keys = widened(keys)
        if keys.device.type == "cuda" and self.matrices[layer].device != keys.device:
            self.matrices[layer] = self.matrices[layer].to(keys.device)
        matrix = self.matrices[layer]
        for start, stop in _panels(len(matrix)):
            panel = matrix[start:stop, :stop]
            left, right = keys[:, start:stop].T, keys[:, :stop]
            if matrix.dtype == keys.dtype and matrix.device == keys.device:
                panel.addmm_(left, right)
            else:
                panel += (left @ right).to(panel)

    def whole(self) -> dict[int, Tensor]:
        """The sums as symmetric matrices, on the CPU; the sums themselves are given away."""
        for matrix in self.matrices.values():
            for start, stop in _panels(len(matrix)):
                corner = matrix[start:stop, start:stop]
                corner.copy_(corner.tril() + corner.tril(-1).T)
                matrix[:start, start:stop] = matrix[start:stop, :start].T
        return {layer: matrix.cpu() for layer, matrix in self.matrices.items()}

    def keep(self, path: Path, position: Position) -> None:
        """Write the sums down, with the position that they have reached."""
        tensors = {str(layer): matrix for layer, matrix in self.matrices.items()}
        note = {"documents": position.documents, "tokens": position.tokens}
        _kept.keep(path, {**tensors, "pending": _kept.as_tokens(position.pending)}, note)

    def restore(self, path: Path) -> Position:
        """Go on from what was written down; the beginning where nothing was."""
        note = _kept.kept_note(path)
        found = _kept.kept(path, "pending", *map(str, self.layers)) if note else None
        if note is None or found is None:
            return Position()
        self.matrices = dict(zip(self.layers, found[1:], strict=True))
        return Position(note["documents"], note["tokens"], found[0][1:].tolist())


def _panels(size: int) -> list[tuple[int, int]]:
    step = max(PANEL, -(-size // 16))
    return [(start, min(start + step, size)) for start in range(0, size, step)]
