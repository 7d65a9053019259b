"""What the fit of all layers looks at (`fitting`): which rows, and what the blocks make of them."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from emend.editing._corpus import Source
from emend.editing.keys import run_until
from emend.editing.packing import parts
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.models.forward import fused
from emend.models.hooks import changing, frozen, hooked
from emend.models.placing import widened
from emend.models.positions import encode, pad, prompt_tokens
from emend.models.replay import hidden_of

DOCUMENTS, LENGTH = 4000, 64
"""Texts that are preserved, at most, and tokens of one."""

EDITS, TOKENS = 256, 1024
"""Edits and tokens of texts that a step looks at."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Read:
    """What texts show.

    Attributes:
        preserved: Tokens of each text, up to where it first names a subject of the edits.
        naming: For each subject, of texts that name it before any other, the tokens up to its last.
    """

    preserved: list[list[int]]
    naming: dict[str, list[list[int]]]


def read_texts(tokenizer: Any, source: Source, edits: Sequence[Edit]) -> Read:
    """Texts, cut where they first name a subject of the edits.

    Raises:
        InvalidInput: Every text begins with one, so that there is nothing to preserve.
    """
    names = sorted({edit.subject for edit in edits}, key=lambda name: (-len(name), name))
    named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
    kept: list[str] = []
    matches: list[re.Match[str]] = []
    for text in islice(source.documents(), DOCUMENTS):
        if found := named.search(text):
            matches.append(found)
            text = text[: found.start()].rstrip()
        if text:
            kept.append(text)
    if not kept:
        raise InvalidInput(
            f"every text of {source.name} begins with a subject of the edits, expected some that "
            "show what to preserve: give other texts"
        )
    preserved = [ids[:LENGTH] for ids in prompt_tokens(tokenizer, kept)]
    return Read(preserved, _naming(tokenizer, matches) if matches else {})


def _naming(tokenizer: Any, matches: Sequence[re.Match[str]]) -> dict[str, list[list[int]]]:
    """For each subject, the tokens up to it where a text names it."""
    encoded = encode(tokenizer, [found.string for found in matches], [m.span() for m in matches])
    assert encoded.lookup is not None
    rows: dict[str, list[list[int]]] = {}
    for found, ids, end in zip(matches, encoded.input_ids, encoded.lookup.tolist(), strict=True):
        if end < LENGTH:
            rows.setdefault(found.group(), []).append(ids[: end + 1].tolist())
    return rows


@dataclass(frozen=True)
class Drawn:
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


class Draws:
    """What the steps look at, drawn with one seed.

    Args:
        contexts: For each of E edits its rows, up to the subject's last token.
        texts: What is preserved.
        moves: (E, width).
        weight: Of a token of texts, against an edit.
        seed: Of the draws.
    """

    def __init__(
        self,
        contexts: Sequence[Rows],
        texts: Rows,
        moves: Tensor,
        weight: float,
        seed: int,
    ) -> None:
        self.contexts, self.texts, self.moves, self.weight = contexts, texts, moves, weight
        self.random = random.Random(seed)

    def draw(self) -> Drawn:
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
        return Drawn([*rows, *texts], weights, self.moves[chosen])


class States:
    """Where values stand with changes, against where they shall, and texts, which shall not move.

    Args:
        view: The model.
        place: What is looked at: the last edited block, or its down-projection.
        padding: A token to pad with.
        draws: What each step looks at, with moves in parts of ``size``.
        size: Mean length of a move.
    """

    def __init__(
        self, view: ModelView, place: nn.Module, padding: int, draws: Draws, size: float
    ) -> None:
        self.view, self.place, self.padding = view, place, padding
        self.draws, self.size = draws, size

    def backward(self, changes: Mapping[int, Tensor]) -> None:
        """Add the gradient of what a step looks at to that of each change (inner, width)."""
        drawn = self.draws.draw()
        for members in parts([len(row) for row in drawn.rows]):
            self._loss(changes, drawn, members).backward()

    def _loss(self, changes: Mapping[int, Tensor], drawn: Drawn, members: list[int]) -> Tensor:
        batch = pad([drawn.rows[n] for n in members], self.padding)
        with torch.no_grad():
            before = hidden_with(self.view, self.place, batch.input_ids)
        after = hidden_with(self.view, self.place, batch.input_ids, changes)
        moved = (after - before) / self.size  # (B, T, width)
        weights = torch.tensor([drawn.weights[n] for n in members])
        counted = batch.attention_mask * weights[:, None]  # (B, T)
        wanted = torch.zeros(moved.shape)
        for place, (row, end) in enumerate(zip(members, batch.lengths - 1, strict=True)):
            if row < len(drawn.moves):
                counted[place, :end] = 0
                wanted[place, end] = drawn.moves[row]
        missing = (moved - wanted.to(moved)).square().sum(2)  # (B, T)
        return (missing * counted.to(missing)).sum()


def hidden_with(
    view: ModelView, place: nn.Module, ids: Tensor, changes: Mapping[int, Tensor] | None = None
) -> Tensor:
    """(B, T, width), what a module puts out with changes (inner, width) of down-projections.

    Float32, float64 of a float64 model. What comes after the module is not run.
    """
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(hidden_of(output))

    with ExitStack() as stack:
        for layer, change in (changes or {}).items():
            stack.enter_context(changing(view.down_projection(layer), change.T))
        for state in (fused(view.model), frozen(view.model), hooked(place, keep)):
            stack.enter_context(state)
        run_until(view, ids, place)
    found = seen[0].reshape(*ids.shape, -1)
    return widened(found)
