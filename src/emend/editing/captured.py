"""Edits captured at one down-projection, for memories that replace its output.

Reads its inputs and outputs at the edits' prompts, computes the loss of their targets with hooks on
it, and optimises the values to return instead. Only the layers from the captured one up run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from emend._progress import progress
from emend.editing.rows import Row, context_rows, parts
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.forward import evaluating, fused, target_nll
from emend.models.hooks import editing_output, frozen
from emend.models.replay import capture_blocks

Replaced = Literal["query", "prompt", "target"]
"""Tokens at which a value replaces the output: the prompt's last one, all of the prompt's, or also
those of the target after which more of it is to be generated."""
ENOUGH = 0.01
"""Loss below which a value is done."""
CHUNK = 32
"""Values optimised together."""


def prompt_rows(tokenizer: Any, edits: Sequence[Edit]) -> list[Row]:
    """Return the rows of edits' prompts and targets, looked up at the prompt's last token.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
    """
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    return [dataclasses.replace(row, lookup=len(row.ids) - len(row.targets)) for row in rows]


class CapturedEdits:
    """Rows of edits that are run again from one layer up.

    Args:
        view: The unedited model.
        rows: As `prompt_rows` gives them.
        layer: The captured layer.
        whole: Run all tokens again, and not only those from the prompt's last on.

    Attributes:
        keys: (B, intermediate_size) float32, the down-projection's input at the first of them.
        outputs: (B, hidden_size) float32, its output there.
        first: (B,) int64, the column of each row's first token among the S that are run.
        ends: (B,) int64, the column of its prompt's last token.
        lasts: (B,) int64, the column of its last token.
    """

    def __init__(
        self, view: ModelView, rows: Sequence[Row], layer: int, *, whole: bool = False
    ) -> None:
        self.view = view
        starts = [0 if whole else row.lookup for row in rows]
        self.capture = capture_blocks(view, [row.ids for row in rows], starts, layer)
        self.keys, self.outputs = self.capture.keys.float().cpu(), self.capture.values.float().cpu()
        self.first = self.capture.at
        self.ends = self.first + torch.tensor([row.lookup for row in rows]) - torch.tensor(starts)
        counts = torch.tensor([len(row.targets) for row in rows])
        self.lasts = self.ends + counts - 1
        self._rows = torch.arange(len(rows)).repeat_interleave(counts)  # (N,) of target tokens
        steps = torch.cat([torch.arange(len(row.targets)) for row in rows])
        self._columns = self.ends[self._rows] + steps
        self._tokens = torch.tensor([token for row in rows for token in row.targets])
        self._weights = 1.0 / counts[self._rows]

    def losses(self) -> Tensor:
        """Return (B,), the mean NLL of each edit's target tokens, with the hooks set now."""
        hidden = self.capture.run_blocks()  # (B, S, hidden_size)
        rows, columns = self._rows.to(hidden.device), self._columns.to(hidden.device)
        logits = self.view.logits(hidden[rows, columns])
        nll = target_nll(logits, self._tokens, self._weights)
        return nll.new_zeros(len(self.ends)).index_add(0, self._rows.to(nll.device), nll)


def prompt_keys(view: ModelView, rows: Sequence[Row], layer: int) -> tuple[Tensor, Tensor]:
    """Return inputs (E, intermediate_size) and outputs (E, hidden_size) of a down-projection.

    Args:
        view: The unedited model.
        rows: As `prompt_rows` gives them; the prompt's last token is looked up.
        layer: The layer.
    """
    groups = parts([len(row.ids) for row in rows])
    found = [CapturedEdits(view, [rows[n] for n in group], layer) for group in groups]
    order = torch.tensor([n for group in groups for n in group]).argsort()
    keys, outputs = [each.keys for each in found], [each.outputs for each in found]
    return torch.cat(keys)[order], torch.cat(outputs)[order]


def optimise_values(
    view: ModelView,
    layer: int,
    rows: Sequence[Row],
    groups: Sequence[list[int]],
    values: Tensor,
    replaced: Replaced,
    steps: int,
    learning_rate: float,
) -> None:
    """Optimise, in place, the output that a down-projection should have at prompts.

    Args:
        view: The unedited model.
        layer: The layer.
        rows: Of all edits, as `prompt_rows` gives them.
        groups: Numbers of edits that share a value, which is optimised on their mean loss.
        values: (E, hidden_size) of all edits, as they begin.
        replaced: Tokens at which the value replaces the output.
        steps: Steps, at most.
        learning_rate: Of Adam.

    Raises:
        NumericalFailure: A loss is not finite.
    """
    order = sorted(groups, key=lambda owners: len(rows[owners[0]].ids))
    chunks = [order[first : first + CHUNK] for first in range(0, len(order), CHUNK)]
    with evaluating(view.model), frozen(view.model), fused(view.model):
        for chunk in progress(chunks, "optimising values"):
            members = [number for owners in chunk for number in owners]
            whole = replaced != "query"
            batch = CapturedEdits(view, [rows[n] for n in members], layer, whole=whole)
            begin = values[[owners[0] for owners in chunk]]
            sizes = torch.tensor([len(owners) for owners in chunk])
            last = batch.lasts if replaced == "target" else batch.ends
            found = _adam(batch, last, begin, sizes, steps, learning_rate)
            for owners, value in zip(chunk, found, strict=True):
                values[owners] = value


def _adam(
    batch: CapturedEdits, last: Tensor, begin: Tensor, sizes: Tensor, steps: int, rate: float
) -> Tensor:
    """Return the values (G, hidden_size) of groups of edits, replaced up to columns (B,)."""
    layer = batch.capture.layer
    values = begin.to(batch.view.device(layer), copy=True).requires_grad_(True)
    sizes = sizes.to(values.device)
    owner = torch.arange(len(begin), device=values.device).repeat_interleave(sizes)

    def put(output: Tensor) -> Tensor:
        apart = output.reshape(len(owner), -1, output.shape[-1])
        columns = torch.arange(apart.shape[1])
        chosen = (columns >= batch.first[:, None]) & (columns <= last[:, None])
        own = values[owner][:, None].to(output)
        return torch.where(chosen[..., None].to(own.device), own, apart).reshape(output.shape)

    adam = torch.optim.Adam([values], lr=rate)
    done = torch.zeros(len(begin), dtype=torch.bool, device=values.device)
    for _ in range(steps):
        with torch.enable_grad(), editing_output(batch.view.down_projection(layer), put):
            each = batch.losses().to(values.device)
            losses = each.new_zeros(len(begin)).index_add(0, owner, each) / sizes
        if not bool(losses.isfinite().all()):
            raise NumericalFailure(
                "the loss of a value is not finite, expected a number: lower learning_rate, load "
                "the model in float32 or bfloat16, or check its weights"
            )
        done |= losses.detach() < ENOUGH
        if bool(done.all()):
            break
        adam.zero_grad()
        losses.sum().backward()
        before = values.detach().clone()
        adam.step()
        values.data[done] = before[done]
    return values.detach().float().cpu()
