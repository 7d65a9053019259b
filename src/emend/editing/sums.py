"""Accumulate sums of k k^T for several layers in one pass, with resumable checkpoints.

Only the lower triangle is computed, in panels: the full product would cost twice as much. The
product of one batch is taken in the keys' precision (float32 for half-precision models) and added
to sums of the chosen precision, which stay on the layer's device.

Attention sinks beyond the start token, and the few tokens with massive activations, have keys tens
of times as long as all others (Sun et al. 2024, arXiv 2402.17762; Yu et al. 2024, arXiv
2411.07191). They would dominate the mean, so they are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend.editing import tensor_cache
from emend.editing.token_batches import Batch, Position
from emend.errors import UnsupportedModel
from emend.models import ModelView
from emend.models.forward import evaluating
from emend.models.hooks import hooked, stopping
from emend.models.placing import device_of, widened

MASSIVE = 10.0
"""A key longer than this many times the median of the first batch is left out."""

PANEL = 256
"""Least number of rows of a panel; there are at most 16 panels."""


class Sums:
    """Sums over the keys of some layers.

    Args:
        view: The model.
        layers: Layers whose keys are summed, counted from 0, each once.
        dtype: Dtype of the sums.
        bounds: Longest key that counts, by layer; by default from the first batch.

    Attributes:
        matrices: (intermediate_size, intermediate_size) of each layer; only the lower triangle is
            valid until `whole` is called.
        left_out: Number of tokens left out at each layer.
        bounds: Longest key that counts, by layer.
    """

    def __init__(
        self,
        view: ModelView,
        layers: Sequence[int],
        dtype: torch.dtype,
        bounds: Mapping[int, float] | None = None,
    ) -> None:
        self.view, self.layers, self.dtype = view, tuple(layers), dtype
        self.matrices = {
            layer: torch.zeros(
                view.intermediate_size(layer), view.intermediate_size(layer), dtype=dtype
            )
            for layer in layers
        }
        self.left_out = dict.fromkeys(self.layers, 0)
        self.bounds = dict(bounds or {})

    def run(self, batch: Batch) -> None:
        """Run a batch up to the last layer's keys and add each layer's keys to its sum.

        Padding is not masked: in a causal model no token attends to its right, and rows of padding
        that attend to nothing give NaN in some models.
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
                f"{', '.join(f'layer {layer}' for layer in passed)}, so it has no keys there "
                "to sum: choose other layers"
            )

    def _add(self, layer: int, keys: Tensor, real: Tensor | None) -> None:
        keys = keys.reshape(-1, keys.shape[-1])  # (tokens, intermediate_size)
        if real is not None:
            keys = keys[real.to(keys.device)]
        keys = widened(keys)
        if keys.device.type == "cuda" and self.matrices[layer].device != keys.device:
            self.matrices[layer] = self.matrices[layer].to(keys.device)
        keys = self._usual(layer, keys)
        matrix = self.matrices[layer]
        for start, stop in _panels(len(matrix)):
            panel = matrix[start:stop, :stop]
            left, right = keys[:, start:stop].T, keys[:, :stop]
            if matrix.dtype == keys.dtype and matrix.device == keys.device:
                panel.addmm_(left, right)
            else:
                panel += (left @ right).to(panel)

    def _usual(self, layer: int, keys: Tensor) -> Tensor:
        """Drop massive keys of (N, intermediate_size); non-finite keys stay, to be reported."""
        lengths = keys.norm(dim=1)  # (N,)
        if layer not in self.bounds:
            self.bounds[layer] = MASSIVE * float(lengths.median())
        massive = (lengths > self.bounds[layer]) & lengths.isfinite()
        found = int(massive.sum())
        self.left_out[layer] += found
        return keys[~massive] if found else keys

    def part(self) -> Sums:
        """Return empty sums that leave out the same keys, for a shard of the batches.

        What is massive is decided by the first batch, so that it must have been run here.
        """
        return Sums(self.view, self.layers, self.dtype, self.bounds)

    def add(self, layer: int, matrix: Tensor, left_out: int) -> None:
        """Add a layer's sum, (intermediate_size, intermediate_size), of a shard."""
        self.matrices[layer] += matrix.to(self.matrices[layer])
        self.left_out[layer] += left_out

    def whole(self) -> dict[int, Tensor]:
        """Return the sums as symmetric matrices on the CPU; this consumes the sums."""
        for matrix in self.matrices.values():
            for start, stop in _panels(len(matrix)):
                corner = matrix[start:stop, start:stop]
                corner.copy_(corner.tril() + corner.tril(-1).T)
                matrix[:start, start:stop] = matrix[start:stop, :start].T
        return {layer: matrix.cpu() for layer, matrix in self.matrices.items()}

    def save(self, path: Path, position: Position) -> None:
        """Write a checkpoint of the sums and of the position reached."""
        tensors = {str(layer): matrix for layer, matrix in self.matrices.items()}
        note = {
            "documents": position.documents,
            "tokens": position.tokens,
            "left_out": [self.left_out[layer] for layer in self.layers],
            "bounds": [self.bounds.get(layer) for layer in self.layers],
        }
        tensor_cache.write(
            path, {**tensors, "pending": tensor_cache.as_tokens(position.pending)}, note
        )

    def restore(self, path: Path) -> Position:
        """Load a checkpoint and return its position; the beginning if there is none."""
        note = tensor_cache.read_note(path)
        found = tensor_cache.read(path, "pending", *map(str, self.layers)) if note else None
        if note is None or found is None:
            return Position()
        self.matrices = dict(zip(self.layers, found[1:], strict=True))
        self.left_out = dict(zip(self.layers, note["left_out"], strict=True))
        bounds = zip(self.layers, note["bounds"], strict=True)
        self.bounds = {layer: bound for layer, bound in bounds if bound is not None}
        return Position(note["documents"], note["tokens"], found[0][1:].tolist())


def _panels(size: int) -> list[tuple[int, int]]:
    step = max(PANEL, -(-size // 16))
    return [(start, min(start + step, size)) for start in range(0, size, step)]
