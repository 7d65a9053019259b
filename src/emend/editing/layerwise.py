"""Layer-wise replay: each edited layer runs on rebuilt lower ones.

A change of a down-projection acts at every token, so keys of a higher layer must be read on all
tokens up to the subject's last. No edit changes the hidden states that enter the first edited
layer: they are stored once, and only the edited layers are run from there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emend.editing.objective import Site
from emend.editing.ridge import Held
from emend.editing.rows import context_rows
from emend.edits import Edit
from emend.models import ModelView
from emend.models.forward import batches, check_length, evaluating, fused
from emend.models.hooks import changing, hooked
from emend.models.placing import widened
from emend.models.replay import BlockCall, Recorder, agrees, cannot_replay, padded_right, shared
from emend.patches import Dense, Factor, LowRank

Write = Callable[[int, Tensor, Tensor, Held | None], Factor]
"""(layer, keys, residuals (E, hidden_size), held pairs) -> the change of that layer's
down-projection; keys are (E, intermediate_size) or (E, C, intermediate_size)."""


@dataclass(frozen=True)
class Reading:
    """Activations at each row's last token; N rows, float32 (float64 for a float64 model).

    Attributes:
        keys: (N, intermediate_size), input of the current layer's down-projection.
        outputs: (N, hidden_size), output of layer ``last``'s down-projection.
        hidden: (N, hidden_size), output of layer ``last``.
    """

    keys: Tensor
    outputs: Tensor
    hidden: Tensor

    def at(self, site: Site) -> Tensor:
        """Return the activations (N, hidden_size) at a site."""
        return self.hidden if site == "block" else self.outputs


@dataclass
class _Batch:
    """Rows of similar length; ``hidden`` (B, T, hidden_size) enters the current layer."""

    members: list[int]
    ends: Tensor  # (B,) int64
    hidden: Tensor
    calls: list[BlockCall]

    def at_ends(self, tensor: Tensor) -> Tensor:
        """Copy (B, T, features), folded or not, at the last tokens to (B, features) on the CPU."""
        apart = tensor.reshape(len(self.members), -1, tensor.shape[-1])
        picked = apart[torch.arange(len(self.members)), self.ends.to(tensor.device)].cpu()
        return widened(picked)


class LayerwiseReplay:
    """Rows of tokens, run up to one layer, that can be advanced layer by layer.

    Args:
        view: The model.
        rows: Token ids of each row.
        first: The layer whose input is stored.
        last: The last layer that will be run.
        batch_size: Rows in one pass.

    Attributes:
        layer: The layer that runs next.

    Raises:
        UnsupportedModel: Layers called again with the same inputs return something else.
    """

    def __init__(
        self,
        view: ModelView,
        rows: Sequence[Sequence[int]],
        first: int,
        last: int,
        *,
        batch_size: int = 64,
    ) -> None:
        self.view, self.first, self.last, self.layer = view, first, last, first
        self.count = len(rows)
        check_length(view.model, max(map(len, rows), default=0))
        self._batches: list[_Batch] = []
        for members in batches([len(row) for row in rows], batch_size):
            hidden, calls, end = self._recorded([rows[n] for n in members])
            ends = torch.tensor([len(rows[n]) - 1 for n in members])
            batch = _Batch(members, ends, hidden, calls)
            if not self._batches:
                self._check(batch, end)
            self._batches.append(batch)

    def read(self, last: int | None = None) -> Reading:
        """Run the layers from the current one to ``last`` (default: it alone) without advancing."""
        last = self.layer if last is None else last
        found: dict[int, tuple[Tensor, ...]] = {}
        for batch in self._batches:
            read = self._read(batch, last)
            found.update(zip(batch.members, zip(*read, strict=True), strict=True))
        ordered = [found[row] for row in range(self.count)]
        return Reading(*(torch.stack(each) for each in zip(*ordered, strict=True)))

    def _read(self, batch: _Batch, last: int) -> tuple[Tensor, Tensor, Tensor]:
        seen: dict[str, Tensor] = {}

        # Copied at once: some models (Falcon) add to the projection's output in place.
        def at_key(_module: nn.Module, args: tuple[Any, ...], _output: Tensor) -> None:
            seen["keys"] = batch.at_ends(args[0])

        def at_output(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            seen["outputs"] = batch.at_ends(output)

        down = self.view.down_projection
        with hooked(down(self.layer), at_key), hooked(down(last), at_output):
            hidden = self._run(batch, batch.hidden, self.layer, last)
        return seen["keys"], seen["outputs"], batch.at_ends(hidden)

    def advance(self, change: LowRank | Dense | None = None) -> None:
        """Run the current layer with its down-projection changed, and move to the next."""
        for batch in self._batches:
            with ExitStack() as stack:
                if change is not None:
                    stack.enter_context(changed(self.view.down_projection(self.layer), change))
                batch.hidden = self._run(batch, batch.hidden, self.layer, self.layer)
        self.layer += 1

    def _run(self, batch: _Batch, hidden: Tensor, first: int, last: int) -> Tensor:
        with torch.no_grad(), evaluating(self.view.model), fused(self.view.model):
            for index in range(first, last + 1):
                call = batch.calls[index - self.first]
                hidden = call.run(self.view.layers[index], _wiped(hidden, batch.ends), None)
        return hidden

    def _recorded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, list[BlockCall], Tensor]:
        """Run up to layer ``last``; return its first input, all calls, and its last input."""
        entering: dict[int, Tensor] = {}

        def keep(layer: int, hidden: Tensor) -> None:
            if layer in (self.first, self.last):
                entering[layer] = hidden

        model, layout = self.view.model, padded_right(rows)
        recorder = Recorder(self.view, layout, self.first, keep=shared, entering=keep)
        with torch.no_grad(), evaluating(model), fused(model):
            found = recorder.run(self.last, run_last=False)
        return entering[self.first], [*found.calls], entering[self.last]

    def _check(self, batch: _Batch, expected: Tensor) -> None:
        """Check that a replay reproduces the model's own pass before layer ``last``."""
        found = self._run(batch, batch.hidden, self.first, self.last - 1)
        real = torch.arange(found.shape[1])[None] <= batch.ends[:, None]  # (B, T)
        found, expected = found[real.to(found.device)], expected[real.to(expected.device)]
        if not agrees(self.view, found, expected):
            raise cannot_replay(self.view)


def _wiped(hidden: Tensor, ends: Tensor) -> Tensor:
    """Set zeros after each row's end: some models give NaN there, and 0 * NaN spreads."""
    after = torch.arange(hidden.shape[1])[None] > ends[:, None]  # (B, T)
    return hidden.masked_fill(after[..., None].to(hidden.device), 0.0)


@contextmanager
def changed(module: nn.Module, change: LowRank | Dense | None) -> Generator[None, None, None]:
    """Apply a change to a down-projection's output, as an attached patch does."""
    with changing(module, *change.matrices()) if change else nullcontext():
        yield


def distribute_residuals(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    targets: Tensor,
    site: Site,
    templates: Sequence[str],
    layers: Sequence[int],
    write: Write,
    *,
    share: Callable[[int], float] = lambda remaining: 1.0 / remaining,
    all_keys: bool = False,
    hold: Sequence[Edit] = (),
    batch_size: int = 64,
) -> dict[int, Factor]:
    """Write target values over several layers, each of which takes its share of the residual.

    MEMIT, Meng et al. 2022, arXiv 2210.07229, algorithm 1, as a function of the base model and the
    set of edits: layer by layer, the keys of all edits are read on the rebuilt lower layers and
    written once, on the base weights.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: E edits, sorted by id.
        targets: (E, hidden_size), target values at the last of the layers.
        site: Site of the target values.
        templates: C context templates, the bare one first.
        layers: The layers; negative numbers count from the end.
        write: Writes one layer.
        share: Part of the residual that a layer takes, given the number of layers left, itself
            included.
        all_keys: Write an edit at the keys of all contexts; if not, as published, at the mean of
            the bare prompt's key and the mean of the others'. The residual is read in the bare
            prompt.
        hold: H prompts about other subjects, whose values are to stay those of the unedited model;
            their targets are not read.
        batch_size: Rows in one pass.

    Returns:
        The change of each layer's down-projection.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A solution is not finite.
    """
    layers = sorted(view.numbered(layers))
    first, last = layers[0], layers[-1]
    texts = context_rows(tokenizer, edits, templates)  # E times C
    texts += context_rows(tokenizer, hold, ["{}"]) if hold else []  # H times 1
    rows = [row.upto_subject for each in texts for row in each]
    replay = LayerwiseReplay(view, rows, first, last, batch_size=batch_size)
    contexts, count = len(templates), len(edits) * len(templates)
    changes: dict[int, Factor] = {}
    before: Tensor | None = None  # (H, hidden_size), values of the held prompts
    for layer in range(first, last + 1):
        if layer in layers:
            here = replay.read(last)
            values = here.at(site).double()
            before = values[count:] if before is None else before
            keys = here.keys[:count].double().unflatten(0, (-1, contexts))  # (E, C, m)
            residuals = targets.double() - values[:count:contexts]  # bare prompts
            part = share(sum(1 for each in layers if each >= layer))
            found = keys if all_keys else _published(keys)
            drift = (before - values[count:]) * part
            held = Held(here.keys[count:].double(), drift) if hold else None
            changes[layer] = write(layer, found, residuals * part, held)
        if layer < last:
            replay.advance(changes.get(layer))
    return changes


def _published(keys: Tensor) -> Tensor:
    """Average keys (E, C, intermediate_size): the mean of the bare one and the others' mean."""
    if keys.shape[1] == 1:
        return keys[:, 0]
    return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
