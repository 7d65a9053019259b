"""Fitting the changes of several layers together, so that none leaves what another must repair.

MEMIT writes layer by layer: each solves a least squares of its own, as if what it moves elsewhere
stayed as small on its way up. With very many edits it does not: what four layers move at subjects
that were not edited adds up, and nobody takes it back. Here the changes D_l of all edited layers
minimise together, through the blocks themselves,

    mean_i |h(s_i) - h0(s_i) - delta_i|^2  +  weight * mean_t |h(t) - h0(t)|^2

    h, h0      output of the last edited block, with the changes and without
    s_i        the subject's last token of edit i, in one of its contexts
    delta_i    z_i - h0(s_i) in the bare prompt, z_i being the value that was sought
    t          the tokens of texts, up to where one names a subject of the edits

by Adam on X_l, where D_l = X_l^T M_l^T and M_l (inner, r) whitens the layer's keys. The first term
is MEMIT's (arXiv 2210.07229, equation 8) and the second its weight on other keys, each taken of
the stream instead of one layer's output. That is ours, not the paper's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.keyvalue._adam import Adam
from emend.keyvalue._corpus import Source
from emend.keyvalue._objective import Site
from emend.keyvalue._packing import pack
from emend.keyvalue.rows import context_rows
from emend.keyvalue.spread import Targets
from emend.models import ModelView
from emend.models._forward import batches, evaluating, fused
from emend.models._hooks import frozen, hooked
from emend.models._replay import hidden_of
from emend.models.placing import device_of
from emend.models.positions import pad, pad_id, prompt_tokens
from emend.patches import Dense

DOCUMENTS, LENGTH = 4000, 64
"""Texts that are preserved, at most, and tokens of one."""

EDITS, TOKENS = 256, 1024
"""Edits and tokens of texts that a step looks at."""

ROWS = 64
"""Rows in one pass where nothing is fitted."""

Whitener = Callable[[int], Tensor]
"""Of a layer, M (inner, r) float64: D moves only directions of M, each as much as another."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Fitting:
    """Settings of `fit_together`.

    Attributes:
        steps: Steps of Adam.
        weight: Weight of a token of texts, against an edit.
        rate: Part of a wanted change that the first half of the steps can make at one key; it
            falls to 0 over the second.
        seed: Draws the contexts and texts of each step.
    """

    steps: int
    weight: float = 10.0
    rate: float = 0.5
    seed: int = 0


def fit_together(
    view: ModelView,
    tokenizer: Any,
    targets: Targets,
    templates: Sequence[str],
    layers: Sequence[int],
    source: Source,
    whitener: Whitener,
    settings: Fitting,
) -> dict[int, Dense]:
    """The changes of all layers that write the targets and move least of what texts show.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        targets: What is wanted, with edits sorted by id.
        templates: Context templates, the bare one first.
        layers: The layers, ascending.
        source: Texts of what is preserved.
        whitener: See `Whitener`.
        settings: See `Fitting`.

    Raises:
        InvalidInput: Every text begins with a subject of the edits, so that nothing is preserved.
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    run = _Run(view, layers, targets.site, pad_id(tokenizer))
    contexts = [
        [row.ids[: row.lookup + 1] for row in each]
        for each in context_rows(tokenizer, targets.edits, templates)
    ]
    texts = preserved_rows(tokenizer, source, targets.edits)
    moves = targets.wanted.float() - run.ends([each[0] for each in contexts])  # (E, width)
    size = float(moves.norm(dim=1).mean())
    whiteners = {layer: whitener(layer).float().to(view.device(layer)) for layer in layers}
    found = {layer: m.new_zeros(m.shape[1], view.width) for layer, m in whiteners.items()}
    optimizers = {layer: Adam(x, 0.0) for layer, x in found.items()}
    draws = _Draws(contexts, texts, moves / size, settings)
    for step in progress(range(settings.steps), "fitting all layers"):
        changes = {layer: whiteners[layer] @ x for layer, x in found.items()}  # (inner, width)
        gradients = run.gradients(changes, draws.draw(), size)
        if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
            raise NumericalFailure(
                f"fitting all layers gave a loss that is not finite at step {step + 1}: "
                "lower fit_rate"
            )
        rate = settings.rate * size / view.width**0.5 * min(1.0, 2 * (1 - step / settings.steps))
        for layer, gradient in gradients.items():
            optimizers[layer].learning_rate = rate / len(found[layer])
            down = whiteners[layer].T @ gradient  # (r, width)
            found[layer] = optimizers[layer].step(found[layer], down)
    return {layer: Dense((whiteners[layer].double() @ x.double()).T) for layer, x in found.items()}


def preserved_rows(tokenizer: Any, source: Source, edits: Sequence[Edit]) -> list[list[int]]:
    """Tokens of texts, each up to where it first names a subject of the edits.

    Raises:
        InvalidInput: None is left.
    """
    names = sorted({edit.subject for edit in edits}, key=lambda name: (-len(name), name))
    named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
    kept: list[str] = []
    for text in islice(source.documents(), DOCUMENTS):
        found = named.search(text)
        text = text[: found.start()].rstrip() if found else text
        if text:
            kept.append(text)
    if not kept:
        raise InvalidInput(
            f"every text of {source.name} begins with a subject of the edits, expected some that "
            "show what to preserve: give other texts"
        )
    return [ids[:LENGTH] for ids in prompt_tokens(tokenizer, kept)]


@dataclass(frozen=True)
class _Drawn:
    """Rows that one step looks at.

    Attributes:
        rows: Tokens of each.
        weights: Weight of each row's tokens that count: of an edit the last, of a text all.
        moves: For rows of edits (n, width), by how much their last token shall move; they come
            first.
    """

    rows: list[Sequence[int]]
    weights: list[float]
    moves: Tensor


class _Draws:
    """What the steps look at, drawn with one seed."""

    def __init__(
        self,
        contexts: Sequence[Rows],
        texts: Rows,
        moves: Tensor,
        settings: Fitting,
    ) -> None:
        self.contexts, self.texts, self.moves = contexts, texts, moves
        self.weight = settings.weight
        self.random = random.Random(settings.seed)

    def draw(self) -> _Drawn:
        """Some edits, each in one of its contexts, and some texts."""
        chosen = self.random.sample(range(len(self.contexts)), min(len(self.contexts), EDITS))
        rows: list[Sequence[int]] = [self.random.choice(self.contexts[n]) for n in chosen]
        texts: list[Sequence[int]] = []
        count = 0
        for text in self.random.sample(self.texts, len(self.texts)):
            if count >= TOKENS:
                break
            texts.append(text)
            count += len(text)
        weights = [1 / len(rows)] * len(rows) + [self.weight / count] * len(texts)
        return _Drawn([*rows, *texts], weights, self.moves[chosen])


class _Stop(Exception):
    pass


class _Run:
    """The blocks up to the last edited one, with and without changes.

    Args:
        view: The model.
        layers: The edited layers, ascending.
        site: What is looked at: the last layer's block, or its down-projection.
        padding: A token to pad with.
    """

    def __init__(self, view: ModelView, layers: Sequence[int], site: Site, padding: int) -> None:
        self.view, self.layers, self.site, self.padding = view, tuple(layers), site, padding

    def ends(self, rows: Rows) -> Tensor:
        """(N, width) float32: what is put out at each row's last token, without changes."""
        found = torch.empty(len(rows), self.view.width)
        for members in batches([len(row) for row in rows], ROWS):
            batch = pad([rows[n] for n in members], self.padding)
            with torch.no_grad():
                hidden = self._hidden(batch.input_ids)
            found[members] = hidden[torch.arange(len(members)), batch.lengths - 1].cpu()
        return found

    def gradients(
        self, changes: Mapping[int, Tensor], drawn: _Drawn, size: float
    ) -> dict[int, Tensor]:
        """The loss's gradient in each layer's change, (inner, width)."""
        leaves = {layer: change.detach().requires_grad_() for layer, change in changes.items()}
        for members in pack([len(row) for row in drawn.rows]):
            self._loss(leaves, drawn, members, size).backward()
        return {layer: leaf.grad for layer, leaf in leaves.items() if leaf.grad is not None}

    def _loss(
        self, changes: Mapping[int, Tensor], drawn: _Drawn, members: list[int], size: float
    ) -> Tensor:
        batch = pad([drawn.rows[n] for n in members], self.padding)
        with torch.no_grad():
            before = self._hidden(batch.input_ids)
        moved = (self._hidden(batch.input_ids, changes) - before) / size  # (B, T, width)
        weights = torch.tensor([drawn.weights[n] for n in members])
        counted = batch.attention_mask * weights[:, None]  # (B, T)
        wanted = torch.zeros(moved.shape)
        for place, (row, end) in enumerate(zip(members, batch.lengths - 1, strict=True)):
            if row < len(drawn.moves):
                counted[place, :end] = 0
                wanted[place, end] = drawn.moves[row]
        missing = (moved - wanted.to(moved)).square().sum(2)  # (B, T)
        return (missing * counted.to(missing)).sum()

    def _hidden(self, ids: Tensor, changes: Mapping[int, Tensor] | None = None) -> Tensor:
        """(B, T, width) float32; what comes after the last edited block is not run."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(hidden_of(output))
            raise _Stop

        last = self.layers[-1]
        model: Any = self.view.model
        with ExitStack() as stack:
            for layer, change in (changes or {}).items():
                stack.enter_context(_added(self.view.down_projection(layer), change))
            down = self.view.down_projection(last)
            block = self.view.blocks[last]
            stack.enter_context(hooked(block if self.site == "block" else down, keep))
            for state in (evaluating(model), fused(model), frozen(model)):
                stack.enter_context(state)
            ids = ids.to(device_of(self.view.embeddings))
            with suppress(_Stop):
                model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        found = seen[0].reshape(*ids.shape, -1)
        return found if found.dtype == torch.float64 else found.float()


@contextmanager
def _added(module: nn.Module, change: Tensor) -> Generator[None, None, None]:
    """Let a down-projection put out what it will with ``change`` (inner, width)."""

    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        keys = args[0].to(change)
        return (output.to(change) + keys @ change).to(output)

    with hooked(module, add):
        yield
