"""MLPs as key-value memories: what triggers a unit, and what it then says.

Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories", arXiv 2012.14913.

    paper      here        what
    k_i        a unit of a layer; its coefficient m_i is an entry of the down-projection's input
    v_i        its value: a column of the down-projection
    t_i        triggers    the prefixes of texts at whose last token m_i is largest
    p_i        softmax(W_U v_i): the value read through the unembedding, without a norm
    agreement  the share of units whose value's most probable token is the one after the first
               trigger (section 4, figure 4)

One pass over the texts serves all units of all layers, since each token ends a prefix. A token
that nothing follows triggers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.errors import InvalidInput
from emend.models import ModelView, ensure_start
from emend.models.forward import evaluating, longest_text
from emend.models.hooks import hooked, stopping
from emend.models.placing import device_of, dtype_of
from emend.models.positions import pad, pad_id, prompt_tokens

LONGEST = 256
"""Tokens of a text that are read at most."""

BATCH = 16
"""Texts that are read at once."""

SHOWN = 24
"""Number of tokens of a trigger that are shown, the last ones."""


class Trigger(NamedTuple):
    """A prefix of a text that triggers a unit.

    Attributes:
        coefficient: The unit's activation at its last token.
        text: The prefix, or the end of it.
        following: The token after it in the text.
    """

    coefficient: float
    text: str
    following: str


class Said(NamedTuple):
    """A token with its probability."""

    token: str
    chance: float


@dataclass(frozen=True)
class Memory:
    """One unit: what triggers it, and what its value says.

    Attributes:
        layer: Its block.
        unit: Its number there.
        triggers: The prefixes that trigger it most, the strongest first.
        value: The most probable tokens of its value.
        agrees: Whether the first of these follows the first trigger.
    """

    layer: int
    unit: int
    triggers: tuple[Trigger, ...]
    value: tuple[Said, ...]
    agrees: bool


@dataclass(frozen=True)
class Agreement:
    """How often values say what follows their triggers, in one layer.

    Attributes:
        layer: The block.
        units: Number of its units.
        rate: Share of units whose value's most probable token follows their first trigger.
        chance: The same where triggers and values of the layer were paired at random.
    """

    layer: int
    units: int
    rate: float
    chance: float


class Memories:
    """The units of some layers with their strongest triggers in some texts.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        texts: Texts; of long ones the first tokens are read.
        layers: Blocks to look at; None for all with an MLP.
        top: Triggers kept for each unit.

    Attributes:
        layers: The blocks.
        tokens: How many prefixes were looked at.

    Raises:
        InvalidInput: No texts with two tokens, no such layer, or a `top` below 1.
    """

    def __init__(
        self,
        view: ModelView,
        tokenizer: Any,
        texts: Iterable[str],
        *,
        layers: Sequence[int] | None = None,
        top: int = 10,
    ) -> None:
        if top < 1:
            raise InvalidInput(f"top is {top}, expected at least 1")
        self.view, self.tokenizer = view, tokenizer
        ensure_start(view.model, tokenizer)
        self.layers = view.editable if layers is None else view.numbered(layers)
        self.tokens = 0
        self._rows: list[list[int]] = []
        self._top = {layer: _Strongest(top) for layer in self.layers}
        for rows in progress(_batches(tokenizer, texts, view.model), "reading texts"):
            self._look(rows)
        if self.tokens == 0:
            raise InvalidInput("the texts hold no two tokens in a row, expected some: give more")

    def unit(self, layer: int, unit: int, *, words: int = 10) -> Memory:
        """Describe one unit by its triggers and its value.

        Args:
            layer: Its block, one of `layers`.
            unit: Its number there.
            words: Number of its value's most probable tokens to list.

        Raises:
            InvalidInput: There is no such unit, or the layer was not looked at.
        """
        layer = self._looked_at(layer)
        inner = self.view.intermediate_size(layer)
        if not 0 <= unit < inner:
            raise InvalidInput(
                f"unit {unit} of layer {layer}, expected a number from 0 to {inner - 1}"
            )
        found = self._top[layer]
        pairs = zip(found.values[unit].tolist(), found.places[unit].tolist(), strict=True)
        triggers = tuple(self._trigger(*pair) for pair in pairs)
        chances = values_read(self.view, layer, [unit])[0].softmax(-1)
        best = chances.topk(min(words, len(chances)))
        said = tuple(
            Said(self._decode([token]), chance)
            for token, chance in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        agrees = int(best.indices[0]) == self._following(layer)[unit]
        return Memory(layer, unit, triggers, said, agrees)

    def strongest(self, layer: int, count: int) -> list[int]:
        """Order the units of a layer by what they add at their first trigger: |m_i| |v_i|."""
        layer = self._looked_at(layer)
        with torch.no_grad():
            sizes = self.view.matrix(layer).float().norm(dim=0).cpu()
        weight = self._top[layer].values[:, 0].abs() * sizes
        return weight.argsort(descending=True)[:count].tolist()

    def agreement(self) -> list[Agreement]:
        """Measure how often values predict what follows their triggers, by layer."""
        return [self._agreement(layer) for layer in self.layers]

    def _looked_at(self, layer: int) -> int:
        (layer,) = self.view.numbered([layer])
        if layer not in self._top:
            raise InvalidInput(f"layer {layer} was not looked at, expected one of {self.layers}")
        return layer

    def _agreement(self, layer: int) -> Agreement:
        inner = self.view.intermediate_size(layer)
        said = values_read(self.view, layer, range(inner)).argmax(-1)
        following = torch.tensor(self._following(layer))
        size = int(max(said.max(), following.max())) + 1
        shares = said.bincount(minlength=size) * following.bincount(minlength=size)
        chance = float(shares.sum()) / inner**2
        return Agreement(layer, inner, float((said == following).float().mean()), chance)

    def _following(self, layer: int) -> list[int]:
        """List the token after each unit's first trigger."""
        return [self._rows[row][end + 1] for row, end in self._top[layer].places[:, 0].tolist()]

    def _trigger(self, coefficient: float, place: list[int]) -> Trigger:
        row, end = place
        ids = self._rows[row]
        text = self._decode(ids[max(0, end + 1 - SHOWN) : end + 1])
        return Trigger(coefficient, text, self._decode([ids[end + 1]]))

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))

    def _look(self, rows: list[list[int]]) -> None:
        """Read a batch of texts, and keep what triggers units more than what was read before."""
        batch = pad(rows, pad_id(self.tokenizer)).to(device_of(self.view.embeddings))
        places = [(r, t) for r, row in enumerate(rows) for t in range(len(row) - 1)]
        index = torch.tensor(places)  # (N, 2)
        shifted = index + torch.tensor([len(self._rows), 0])

        def looking(layer: int) -> Any:
            def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
                apart = args[0].reshape(len(rows), -1, args[0].shape[-1])
                at = index.to(apart.device)
                found = apart[at[:, 0], at[:, 1]].float().cpu()  # (N, inner)
                self._top[layer].add(found, shifted)

            return look

        with ExitStack() as stack, torch.no_grad(), evaluating(self.view.model):
            for layer in self.layers:
                site = self.view.down_projection(layer)
                stack.enter_context(hooked(site, looking(layer), before=True))
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            with stopping(self.view.layer(max(self.layers))):
                self.view.model(**inputs, use_cache=False)
        self._rows += rows
        self.tokens += len(places)


class _Strongest:
    """The largest values so far of each unit, and where they were."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.values = torch.empty(0)  # (inner, top)
        self.places = torch.empty(0)  # (inner, top, 2) int64: row and token

    def add(self, found: Tensor, places: Tensor) -> None:
        """Look at (N, inner) values at (N, 2) places."""
        best = found.T.topk(min(self.top, len(found)))
        values, where = best.values, places[best.indices]
        if len(self.values):
            values = torch.cat([self.values, values], dim=1)
            where = torch.cat([self.places, where], dim=1)
        kept = values.topk(min(self.top, values.shape[1]))
        self.values = kept.values
        self.places = where.gather(1, kept.indices[:, :, None].expand(-1, -1, 2))


def _batches(tokenizer: Any, texts: Iterable[str], model: nn.Module) -> Iterator[list[list[int]]]:
    longest = min(LONGEST, longest_text(model) or LONGEST)
    batch: list[list[int]] = []
    for text in texts:
        if not text.strip():
            continue
        row = prompt_tokens(tokenizer, [text])[0][:longest]
        if len(row) > 1:
            batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def values_read(view: ModelView, layer: int, units: Sequence[int]) -> Tensor:
    """Compute the logits W_U v_i of values, (units, vocabulary) float32 on the CPU."""
    found: list[Tensor] = []
    with torch.no_grad():
        matrix = view.matrix(layer)  # (width, inner)
        for start in range(0, len(units), 256):
            some = torch.tensor(list(units[start : start + 256]), device=matrix.device)
            values = matrix[:, some].T.to(
                device=device_of(view.lm_head), dtype=dtype_of(view.lm_head)
            )
            found.append(view.lm_head(values).float().cpu())
    return torch.cat(found)
