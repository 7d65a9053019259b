"""Reading edits for a hypernetwork, and running the model with what it made of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from emend.editing.gradients import linear_modules, mlp_modules, token_gradients
from emend.editing.rows import Row
from emend.edits import Edit
from emend.methods.hypernetwork._network import Factors, Hypernetwork, Reading
from emend.models import ModelView, encode
from emend.models.hooks import hooked
from emend.models.placing import device_of, widened
from emend.models.structure import projection_shape


def edited_shapes(view: ModelView, layers: Sequence[int] | None) -> dict[str, tuple[int, int]]:
    """The MLP matrices of some blocks with their shapes (out, in).

    Raises:
        InvalidInput: There is no such block.
    """
    if layers is None:
        layers = view.editable_from(view.num_layers - max(3, round(view.num_layers / 3)))
    names: list[str] = []
    for layer in sorted(view.numbered(layers)):
        into, down = mlp_modules(view, layer)
        names += [*into, down]
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in linear_modules(view, names).items():
        shape = projection_shape(module)
        assert shape is not None
        shapes[name] = shape
    return shapes


def read_edits_for(
    network: Hypernetwork,
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    rows: Sequence[Row],
    batch_size: int = 32,
) -> Reading:
    """What the network is told of edits.

    Args:
        network: Says which matrices, and whether it reads the text.
        view: The model, with nothing attached.
        tokenizer: Its tokenizer.
        edits: The edits.
        rows: Their prompts and targets.
        batch_size: Rows in one pass.
    """
    modules = linear_modules(view, list(network.shapes))
    gradients = token_gradients(view, rows, modules, batch_size=batch_size)
    if not network.reads_text:
        return Reading(gradients)
    texts = [f"{edit.original or ''} >> {edit.target.strip()} || {edit.text}" for edit in edits]
    encoded = encode(tokenizer, texts)
    device = device_of(view.embeddings)
    with torch.no_grad():
        vectors = view.embeddings(encoded.input_ids.to(device)).float().cpu()
    return Reading(gradients, vectors, encoded.lengths)


@contextmanager
def edited(
    view: ModelView, factors: Mapping[str, Factors], owners: Tensor
) -> Generator[None, None, None]:
    """Let each row of a batch be run by the model with its own edit; gradients reach the factors.

    Args:
        view: The model.
        factors: The change of each matrix, of several edits.
        owners: (B,) int64, the edit of each row of the batch.
    """
    with ExitStack() as stack:
        for name, module in linear_modules(view, list(factors)).items():
            stack.enter_context(hooked(module, _adds(factors[name], owners)))
        yield


def _adds(factors: Factors, owners: Tensor) -> Any:
    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = widened(args[0].reshape(len(owners), -1, args[0].shape[-1]))  # (B, T, in)
        weights = given @ factors.inputs.to(given).T  # (B, T, N)
        if factors.rows is not None:
            own = owners[:, None] == factors.rows  # (B, N)
            weights = weights * own[:, None].to(weights)
        change = (weights @ factors.outputs.to(weights)).reshape(output.shape)
        return (widened(output) + change).to(output.dtype)

    return add
