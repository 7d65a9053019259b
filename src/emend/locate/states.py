"""States of a model at every block, in one plain pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from emend.models import ModelView
from emend.models.forward import check_length, evaluating
from emend.models.hooks import hooked
from emend.models.placing import device_of
from emend.models.replay import hidden_of


def block_states(view: ModelView, ids: Sequence[int]) -> list[Tensor]:
    """Return the output of each block, (T, hidden_size), for one row of T token ids.

    Raises:
        InvalidInput: The row is longer than the model reads.
    """
    check_length(view.model, len(ids))
    found: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        found.append(hidden_of(output)[0].clone())

    with ExitStack() as stack, torch.no_grad(), evaluating(view.model):
        for block in view.layers:
            stack.enter_context(hooked(block, keep))
        row = torch.tensor([list(ids)], device=device_of(view.embeddings))
        view.model(input_ids=row, use_cache=False)
    return found
