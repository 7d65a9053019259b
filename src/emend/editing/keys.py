"""Keys: inputs of a down-projection at the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend._brief import brief
from emend.editing.rows import check_templates, context_rows
from emend.edits import Edit
from emend.models import ModelView
from emend.models.forward import batches, check_length, evaluating
from emend.models.hooks import hooked, stopping
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id


@brief
@dataclass(frozen=True)
class KeysAndOutputs:
    """One down-projection at the subject's last token; E edits, C contexts, float32.

    Attributes:
        keys: (E, C, intermediate_size), its input.
        outputs: (E, C, hidden_size), its output.
    """

    keys: Tensor
    outputs: Tensor


def subject_keys(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int = 64,
) -> dict[int, KeysAndOutputs]:
    """Read keys and outputs of several layers in one pass, which stops at the last of them.

    Tokens after the subject affect neither and are not run.

    Returns:
        By layer, counted from 0.

    Raises:
        InvalidInput: A layer does not exist.
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    layers = view.numbered(layers)
    rows = [
        row for each in context_rows(tokenizer, edits, check_templates(templates)) for row in each
    ]
    every = [row.upto_subject for row in rows]
    texts = list(dict.fromkeys(every))  # equal texts are run once, so that their keys are equal
    found: dict[int, tuple[list[Tensor], list[Tensor]]] = {
        layer: ([torch.empty(0)] * len(texts), [torch.empty(0)] * len(texts)) for layer in layers
    }
    for members in batches([len(text) for text in texts], batch_size):
        batch = pad([texts[n] for n in members], pad_id(tokenizer))
        ends = batch.lengths - 1
        with watching(view, layers) as seen:
            forward(view, batch.input_ids, max(layers))
        for layer in layers:
            given, put_out = seen[layer]
            index = torch.arange(len(members))
            for target, tensor in zip(found[layer], (given, put_out), strict=True):
                at = tensor.reshape(len(members), -1, tensor.shape[-1]).cpu()[index, ends].float()
                for row, vector in zip(members, at, strict=True):
                    target[row] = vector
    shape = (len(edits), len(templates), -1)
    number = {text: index for index, text in enumerate(texts)}
    places = torch.tensor([number[text] for text in every])
    return {
        layer: KeysAndOutputs(*(torch.stack(each)[places].reshape(shape) for each in pair))
        for layer, pair in found.items()
    }


class watching:  # noqa: N801 - reads as a verb: with watching(view, layers) as seen
    """Record input and output of the down-projections of some layers while the model runs."""

    def __init__(self, view: ModelView, layers: Sequence[int]) -> None:
        self.view, self.layers = view, layers
        self.stack = ExitStack()

    def __enter__(self) -> dict[int, tuple[Tensor, Tensor]]:
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def watch(layer: int) -> Any:
            def look(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                seen[layer] = (args[0], output)

            return look

        for layer in self.layers:
            self.stack.enter_context(hooked(self.view.down_projection(layer), watch(layer)))
        return seen

    def __exit__(self, *_: object) -> None:
        self.stack.close()


def forward(view: ModelView, input_ids: Tensor, last: int) -> None:
    """Run a right-padded batch up to the down-projection of layer ``last``."""
    with torch.no_grad():
        run_until(view, input_ids, view.down_projection(last))


def run_until(view: ModelView, input_ids: Tensor, module: nn.Module) -> None:
    """Run a right-padded batch until ``module`` has returned and its hooks have run.

    Padding is not masked: in a causal model no token attends to its right, and rows of padding
    that attend to nothing give NaN in some models (Gemma 2 in float64).
    """
    model: Any = view.model
    check_length(model, input_ids.shape[1])
    ids = input_ids.to(device_of(view.embeddings))
    with evaluating(model), stopping(module):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
