"""Values that a down-projection puts out at prompts, sought for several edits at once.

Where `values` seeks what to add at the subject's last token, this seeks what to put out instead
at the prompt's last one, at all of its tokens, or also while the target is said. Only the blocks
from the layer up are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.editing._adam import Adam
from emend.editing.packing import pack
from emend.editing.rows import Row
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.forward import evaluating, fused, target_nll
from emend.models.hooks import frozen, hooked
from emend.models.replay import BlockCapture, capture_blocks

Replaced = Literal["query", "prompt", "target"]
"""Tokens at which a value is put out: the prompt's last one, all of the prompt's, or also those of
the target after which more of it is to be said."""
REPLACED = get_args(Replaced)


class Entries:
    """Rows of edits, with what one down-projection is given and puts out where it is replaced.

    Args:
        view: The unedited model.
        rows: The edits' rows; ``lookup`` is the prompt's last token.
        layer: The block.
        replaced: Tokens at which a value is put out: the prompt's last one ("query"), all of the
            prompt's ("prompt"), or all of the row's ("target").

    Attributes:
        keys: (E, inner) float32, what the down-projection is given at the lookup.
        outputs: (E, width) float32, what it puts out there.
    """

    def __init__(
        self, view: ModelView, rows: Sequence[Row], layer: int, *, replaced: Replaced
    ) -> None:
        self.view, self.rows, self.layer = view, rows, layer
        self.replaced, self.whole = replaced, replaced != "query"
        with evaluating(view.model), frozen(view.model):
            found = [self._site(members) for members in self.packed(range(len(rows)))]
        order = [number for members, _, _ in found for number in members]
        places = torch.tensor(order).argsort()
        self.keys = torch.cat([keys for _, keys, _ in found])[places]
        self.outputs = torch.cat([outputs for _, _, outputs in found])[places]

    def sought(
        self,
        groups: Sequence[Sequence[int]],
        start: Tensor,
        *,
        steps: int,
        learning_rate: float,
        stop_below: float,
        chunk: int,
    ) -> Tensor:
        """The value of each group of edits: Adam on the mean of their targets' losses.

        Args:
            groups: Numbers of the edits that share one value.
            start: (G, width), where the values begin.
            steps: Steps, at most.
            learning_rate: Adam's.
            stop_below: A group is done when its loss, the mean over tokens and then over edits
                of the negative log-likelihood, is below this.
            chunk: Groups sought together.

        Returns:
            (G, width) float32.

        Raises:
            NumericalFailure: A loss is not finite.
        """
        found = start.clone()
        order = sorted(range(len(groups)), key=lambda n: len(self.rows[groups[n][0]].ids))
        chunks = [order[first : first + chunk] for first in range(0, len(order), chunk)]
        with evaluating(self.view.model), frozen(self.view.model), fused(self.view.model):
            for members in progress(chunks, "seeking values"):
                search = _Search(self, [groups[n] for n in members])
                found[members] = search.run(start[members], steps, learning_rate, stop_below)
        return found

    def capture(self, members: Sequence[int]) -> BlockCapture:
        """Some rows, captured from where they are replaced."""
        rows = [self.rows[number] for number in members]
        starts = [0 if self.whole else row.lookup for row in rows]
        return capture_blocks(self.view, [row.ids for row in rows], starts, self.layer)

    def packed(self, numbers: Sequence[int]) -> list[list[int]]:
        """Rows of like length together."""
        lengths = [len(self.rows[number].ids) for number in numbers]
        return [[numbers[place] for place in places] for places in pack(lengths)]

    def _site(self, members: Sequence[int]) -> tuple[Sequence[int], Tensor, Tensor]:
        """Numbers of some rows, with keys and outputs at their lookups."""
        rows = [self.rows[number] for number in members]
        ids, lookups = [row.ids for row in rows], [row.lookup for row in rows]
        capture = capture_blocks(self.view, ids, lookups, self.layer)
        return members, capture.keys.float().cpu(), capture.values.float().cpu()


class _Search:
    """The search for the values of some groups together."""

    def __init__(self, entries: Entries, groups: Sequence[Sequence[int]]) -> None:
        self.entries, self.view = entries, entries.view
        owner = {number: place for place, owned in enumerate(groups) for number in owned}
        size = {number: len(owned) for owned in groups for number in owned}
        numbers = [number for owned in groups for number in owned]
        self.parts: list[tuple[BlockCapture, Tensor, Tensor, Tensor, Tensor]] = []
        tokens: list[int] = []
        owners: list[int] = []
        weights: list[float] = []
        for members in entries.packed(numbers):
            capture = entries.capture(members)
            rows, columns = self._scored(capture, members)
            for number in members:
                targets = entries.rows[number].targets
                tokens += targets
                owners += [owner[number]] * len(targets)
                weights += [1.0 / (len(targets) * size[number])] * len(targets)
            replaced_rows, replaced_columns = self._replaced(capture, members)
            of_row = torch.tensor([owner[number] for number in members])
            self.parts.append(
                (capture, torch.stack([rows, columns]), replaced_rows, replaced_columns, of_row)
            )
        self.tokens, self.owners = torch.tensor(tokens), torch.tensor(owners)
        self.weights = torch.tensor(weights)
        self.count = len(groups)

    def _scored(self, capture: BlockCapture, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where the targets' tokens are read off, row by row."""
        rows: list[int] = []
        columns: list[int] = []
        for place, number in enumerate(members):
            row = self.entries.rows[number]
            shift = int(capture.at[place]) - (0 if self.entries.whole else row.lookup)
            first = len(row.ids) - len(row.targets) + shift
            columns += range(first, first + len(row.targets))
            rows += [place] * len(row.targets)
        return torch.tensor(rows), torch.tensor(columns)

    def _replaced(self, capture: BlockCapture, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where the value is put out."""
        rows: list[int] = []
        columns: list[int] = []
        for place, number in enumerate(members):
            start = int(capture.at[place])
            row = self.entries.rows[number]
            count = {"query": 1, "prompt": row.lookup + 1, "target": len(row.ids)}[
                self.entries.replaced
            ]
            columns += range(start, start + count)
            rows += [place] * count
        return torch.tensor(rows), torch.tensor(columns)

    def run(self, values: Tensor, steps: int, learning_rate: float, stop_below: float) -> Tensor:
        """(G, width) -> (G, width)."""
        values = values.to(self.view.device(self.entries.layer))
        adam = Adam(values, learning_rate)
        done = torch.zeros(self.count, dtype=torch.bool, device=values.device)
        for _ in range(steps):
            values = values.detach().requires_grad_(True)
            losses = self._losses(values)
            if not bool(losses.isfinite().all()):
                raise NumericalFailure(
                    "the loss of a value is not finite, expected a number: lower learning_rate, "
                    "load the model in float32 or bfloat16, or check its weights"
                )
            done |= losses.detach() < stop_below
            if bool(done.all()):
                break
            (gradient,) = torch.autograd.grad(losses.sum(), values)
            moved = adam.step(values.detach(), gradient)
            values = torch.where(done[:, None], values.detach(), moved)
        return values.detach().float().cpu()

    def _losses(self, values: Tensor) -> Tensor:
        """(G,), mean negative log-likelihood of each group's targets."""
        hidden: list[Tensor] = []
        down = self.view.down_projection(self.entries.layer)
        for capture, scored, rows, columns, owners in self.parts:
            put_out = _puts_out(values[owners[rows].to(values.device)], rows, columns, len(owners))
            with hooked(down, put_out):
                whole = capture.run_blocks()  # (B, S, width)
            hidden.append(whole[scored[0].to(whole.device), scored[1].to(whole.device)])
        logits = self.view.logits(torch.cat(hidden))
        nll = target_nll(logits, self.tokens, self.weights)
        zeros = torch.zeros(self.count, dtype=nll.dtype, device=nll.device)
        return zeros.index_add(0, self.owners.to(nll.device), nll).to(values.device)


def _puts_out(values: Tensor, rows: Tensor, columns: Tensor, count: int) -> Any:
    """A hook that puts out values (N, width) at some tokens of ``count`` rows."""

    def replace(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        apart = output.reshape(count, -1, output.shape[-1])
        index = rows.to(output.device), columns.to(output.device)
        return apart.index_put(index, values.to(output)).reshape(output.shape)

    return replace
