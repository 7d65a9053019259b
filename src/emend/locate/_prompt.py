"""One prompt, clean and disturbed, that can be run again from any block and any token on.

The clean pass is the model's own, and it keeps what each block was called with. What is disturbed
changes nothing before its first token, so that from there on only the tokens after it are run:
keys and values of earlier tokens are taken from the runs before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from emend.models import ModelView
from emend.models.hooks import wiped
from emend.models.layout import Layout, Window
from emend.models.replay import BlockCall, cut, each_leaf

SITES = ("mlp", "attention")
"""The parts of a block whose outputs are restored or severed."""

KeysValues: TypeAlias = Mapping[int, tuple[Tensor, Tensor]]
"""By the model's own number of a layer: (rows, heads, tokens, features) each."""


@dataclass(frozen=True)
class Run:
    """What a pass put out, from column `first` on.

    Attributes:
        first: The first column that it holds.
        before: (R, S, width), input of the first block.
        states: (R, S, width) for each block, its output.
        parts: The same of each block's parts, by the names of `SITES`.
        kept: Keys and values of these tokens; None where none are reused.
    """

    first: int
    before: Tensor
    states: tuple[Tensor, ...]
    parts: Mapping[str, tuple[Tensor, ...]]
    kept: KeysValues | None

    def select(self, rows: slice) -> Run:
        """The same for some of its rows."""
        kept = self.kept
        return replace(
            self,
            before=self.before[rows],
            states=tuple(state[rows] for state in self.states),
            parts={site: tuple(one[rows] for one in parts) for site, parts in self.parts.items()},
            kept=kept and {layer: (k[rows], v[rows]) for layer, (k, v) in kept.items()},
        )


class EarlierTokens(DynamicCache):
    """Puts new keys and values after those of earlier tokens, which many rows share.

    Args:
        segments: Keys and values with how many of their first tokens are taken. Their rows are
            repeated to as many as are asked for.
    """

    def __init__(self, segments: Sequence[tuple[KeysValues, int]]) -> None:
        super().__init__()
        self.segments = list(segments)
        self.given: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, (R, heads, T, features); those given are remembered."""
        self.given[layer_idx] = (key_states, value_states)
        pairs = [(kept[layer_idx], count) for kept, count in self.segments]
        keys = [_repeated(pair[0], count, key_states) for pair, count in pairs]
        values = [_repeated(pair[1], count, value_states) for pair, count in pairs]
        return torch.cat([*keys, key_states], dim=2), torch.cat([*values, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens before those that are run."""
        return sum(count for _, count in self.segments)


def _repeated(kept: Tensor, count: int, like: Tensor) -> Tensor:
    return kept[:, :, :count].repeat(len(like) // len(kept), 1, 1, 1)


@dataclass(frozen=True)
class Prompt:
    """A prompt's clean pass, and how to run parts of it again.

    Attributes:
        view: The model.
        layout: The prompt's one row, with one column of padding.
        first: Column of the first token that is to be disturbed.
        last: Column of the last token.
        clean: The model's own pass, (1, T, width).
        calls: What each block was called with, uncut.
    """

    view: ModelView
    layout: Layout
    first: int
    last: int
    clean: Run
    calls: tuple[BlockCall, ...]

    def start(self, column: int) -> int:
        """The column from which a change at ``column`` makes tokens run again."""
        return column if self.layout.reuse else 0

    def cache(self, column: int, disturbed: Run | None = None) -> EarlierTokens | None:
        """Keys and values of the tokens before ``column``, disturbed from `first` on."""
        if self.clean.kept is None:
            return None
        if disturbed is None or disturbed.kept is None:
            return EarlierTokens([(self.clean.kept, column)])
        count = column - disturbed.first
        return EarlierTokens([(self.clean.kept, disturbed.first), (disturbed.kept, count)])

    def blocks(self, column: int) -> list[Callable[[Tensor, EarlierTokens | None], Tensor]]:
        """For each block a function that runs the tokens from ``column`` on, (R, S, width)."""
        length = self.layout.window.length
        first = self.start(column)
        window = Window(torch.tensor([first]), length - first, length)
        padding = self.layout.attention_mask[:, first:] == 0

        def narrow(leaf: Any) -> Any:
            return cut(leaf, window) if isinstance(leaf, Tensor) else leaf

        def bound(block: nn.Module, call: BlockCall) -> Callable[..., Tensor]:
            args, kwargs = each_leaf(call.args, narrow), each_leaf(call.kwargs, narrow)
            narrowed = BlockCall(args, kwargs, call.hidden_name)

            def run(hidden: Tensor, cache: EarlierTokens | None) -> Tensor:
                rows = torch.zeros(len(hidden), dtype=torch.long)
                hidden = wiped(hidden, padding if bool(padding.any()) else None)
                return narrowed.select(rows).run(block, hidden, cache)

            return run

        return [bound(*pair) for pair in zip(self.view.layers, self.calls, strict=True)]

    def chances(self, hidden: Tensor, token: int) -> Tensor:
        """(R,), probability of a token after the prompt.

        Args:
            hidden: (R, S, width), output of the last block.
            token: The token's number.
        """
        from_end = self.last - self.layout.window.length  # negative
        logits = self.view.logits(hidden[:, from_end])
        return (logits[:, token] - logits.logsumexp(-1)).exp()
