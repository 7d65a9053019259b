"""Captures: from one block up and one token on, for a change of a down-projection's output.

A change of a down-projection's output at one token leaves everything below that block and
everything before that token as it was. So one pass over the whole model captures the input of
the block, the arguments that the model itself gave each block from there on, and the keys and
values of the tokens before; after that only the tokens from the changed one on are run, through
the blocks from the changed one up.

Each capture is checked against the pass it came from, and the ways of laying out rows of different
lengths (`layout`) are tried in turn; where none works, all tokens are run from the block up (still
exact, slower), and a warning says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import UnsupportedModel
from emend.models.forward import check_length, evaluating
from emend.models.hooks import add_at, adding, frozen, hooked, thinned, wiped
from emend.models.replay.calls import (
    BlockCall,
    PrefixCache,
    RecordingCache,
    Refused,
    Slot,
    cut,
    hidden_of,
)
from emend.models.replay.layout import ARRANGEMENTS, Arrange, Layout, Rows, check_rows
from emend.models.replay.recording import (
    AGREEMENT,
    FOREIGN,
    Recorder,
    Watch,
    agrees,
    cannot_replay,
    not_finite,
    warn_uncached,
)
from emend.models.structure import projection_shape
from emend.models.view import ModelView


@dataclass(frozen=True)
class BlockCapture:
    """Everything needed to run a model again from one block up and from one token on.

    Attributes:
        view: The model.
        layer: The block whose down-projection is to change.
        keys: (B, inner), input of that down-projection at the start tokens.
        values: (B, width), its output there.
        at: (B,) int64, the column of each row's start token among the S tokens that are run. A
            row's tokens follow one another from there; what comes after its last is padding.
        arrange: The layout that served.
        is_additive: Whether what is added to the down-projection's output is added to the
            block's output unchanged, so that the block itself need not run again.
        thins: Whether the MLP of the last block can be run at some tokens only.
    """

    view: ModelView
    layer: int
    keys: Tensor
    values: Tensor
    at: Tensor
    arrange: Arrange
    is_additive: bool = False
    thins: bool = False
    _before: Tensor = field(repr=False, kw_only=True)  # (B, S, width), input of block `layer`
    _after: Tensor = field(repr=False, kw_only=True)  # (B, S, width), its output
    _calls: tuple[BlockCall, ...] = field(repr=False, kw_only=True)  # from block `layer` up
    _cache: PrefixCache | None = field(repr=False, kw_only=True)
    _padding: Tensor | None = field(repr=False, kw_only=True)  # (B, S) bool, where it is wiped

    @property
    def rows(self) -> int:
        """Number of rows, B."""
        return int(self._before.shape[0])

    @property
    def reuses_prefix(self) -> bool:
        """Whether the tokens before the start are left out of each run."""
        return self._cache is not None

    def run(self, delta: Tensor | None = None, watch: Watch | None = None) -> Tensor:
        """Output of the last block where ``delta`` is added to the down-projection's output.

        Args:
            delta: (B, width), what is added at each row's start token; None adds nothing.
            watch: Called with each block's number, from the captured one on, and its output.

        Returns:
            (B, S, width); see ``at``.
        """
        if delta is None or self.is_additive:
            after = self._after if delta is None else add_at(self._after, delta, self.at)
            if watch is not None:
                watch(self.layer, after)
            return self.run_blocks(after, self.layer + 1, watch)
        with adding(self.view.down_projection(self.layer), delta, self.at):
            return self.run_blocks(watch=watch)

    def at_block(self) -> BlockCapture:
        """Return the same for the block's output in place of the down-projection's."""
        index = torch.arange(self.rows, device=self._after.device)
        values = self._after[index, self.at.to(self._after.device)].clone()
        return replace(self, values=values, is_additive=True)

    def attention_outputs(self) -> Tensor:
        """Return the output of the block's attention at the start tokens, (B, hidden_size)."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            apart = hidden_of(output).reshape(self.rows, -1, self.view.hidden_size)
            index = torch.arange(self.rows, device=apart.device)
            seen.append(apart[index, self.at.to(apart.device)].clone())

        with torch.no_grad(), hooked(self.view.attention(self.layer), keep):
            self._run_block(self.layer, self._before)
        return seen[0]

    def run_at(
        self, delta: Tensor, rows: Tensor, columns: Tensor, watch: Watch | None = None
    ) -> Tensor:
        """Run like ``run``, for the output at some positions; the last MLP is run nowhere else.

        Args:
            delta: (B, width).
            rows: (N,) int64, rows.
            columns: (N,) int64, columns among the S tokens of a run.
            watch: As of ``run``; the last block's output is right at these positions only.

        Returns:
            (N, width).
        """
        with self._thinned(rows, columns) if self.thins else nullcontext():
            hidden = self.run(delta, watch)
        return hidden[rows.to(hidden.device), columns.to(hidden.device)]

    def run_blocks(
        self,
        hidden: Tensor | None = None,
        first: int | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Run block ``first`` (by default the captured one) and all above it.

        Args:
            hidden: (B, S, width), the block's input; by default what it was.
            first: Number of the first block to run, at least the captured one.
            watch: Called with the number of each block that runs, and its output (B, S, width).

        Returns:
            (B, S, width), output of the last block.
        """
        hidden = self._before if hidden is None else hidden
        first = self.layer if first is None else first
        for index in range(first, self.view.num_layers):
            hidden = self._run_block(index, hidden)
            if watch is not None:
                watch(index, hidden)
        return hidden

    def looked_at(self) -> BlockCapture:
        """Return the same with ``is_additive`` and ``thins``, tested on a few rows once."""
        found, additive, thins = self.view.findings, ("additive", self.layer), ("thins", self.layer)
        some = self.select(_sample(self))
        if additive not in found:
            found[additive] = some._finds_additive()
        # One token fits where many are expected, and so do all: that would show nothing.
        if thins not in found and some.rows > 1 and some._before.shape[1] > 1:
            found[thins] = some._finds_thinning()
        return replace(self, is_additive=found[additive], thins=found.get(thins, False))

    def _finds_additive(self) -> bool:
        """Test whether gradients at the block's output reach the projection's output unchanged.

        Adding is the one thing whose gradient is the identity to the last bit; a norm after the
        MLP (Gemma 2, OLMo 2) or a factor on the residual (Granite) shows.
        """
        delta = torch.zeros_like(self.values, requires_grad=True)
        site, model = self.view.down_projection(self.layer), self.view.model
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(self._after.shape, generator=generator).to(self._after)
        with torch.enable_grad(), evaluating(model), frozen(model), adding(site, delta, self.at):
            output = self._run_block(self.layer, self._before)
        (gradient,) = torch.autograd.grad((output * weights).sum(), delta)
        index = torch.arange(self.rows, device=weights.device)
        return torch.equal(gradient, weights[index, self.at.to(weights.device)])

    def _finds_thinning(self) -> bool:
        """Test whether the last MLP, run at one token a row, gives the same there."""
        if self.layer == self.view.num_layers - 1:
            return False
        index = torch.arange(self.rows)
        try:
            with torch.no_grad(), evaluating(self.view.model):
                expected = self.run()
                with self._thinned(index, self.at):
                    found = self.run()
        except (*FOREIGN, UnsupportedModel):
            return False
        at = self.at.to(expected.device)
        difference = (found - expected)[index, at].abs().max()
        return bool(difference <= AGREEMENT[expected.dtype] * expected[index, at].abs().max())

    def _thinned(self, rows: Tensor, columns: Tensor) -> AbstractContextManager[None]:
        """Run the last block's MLP at some tokens only."""
        last = self.view.num_layers - 1
        down, inside = self.view.down_projection(last), self.view.attention(last).modules()
        skipped = {down, *inside}
        before = [
            module
            for module in self.view.layer(last).modules()
            if projection_shape(module) and module not in skipped
        ]
        return thinned(down, before, (self.rows, int(self._before.shape[1])), rows, columns)

    def _run_block(self, index: int, hidden: Tensor) -> Tensor:
        hidden = wiped(hidden, self._padding)
        return self._calls[index - self.layer].run(self.view.layers[index], hidden, self._cache)

    def select(self, rows: Sequence[int]) -> BlockCapture:
        """Return the same capture for some of the rows only."""
        index = torch.tensor(list(rows), dtype=torch.long)

        def choose(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device)]

        return replace(
            self,
            keys=choose(self.keys),
            values=choose(self.values),
            at=choose(self.at),
            _before=choose(self._before),
            _after=choose(self._after),
            _calls=tuple(call.select(index) for call in self._calls),
            _cache=None if self._cache is None else self._cache.select(index),
            _padding=None if self._padding is None else choose(self._padding),
        )


def capture_blocks(
    view: ModelView,
    rows: Rows,
    starts: Sequence[int],
    layer: int,
    *,
    padding: int = 0,
    least: int = 1,
    arrangements: Sequence[Arrange] = ARRANGEMENTS,
) -> BlockCapture:
    """Run the model once over rows of token ids, and keep what the blocks from one up need.

    Args:
        view: The model.
        rows: Token ids of each row, unpadded.
        starts: For each row the token from which on it may change.
        layer: The block whose down-projection is to change.
        padding: Any token id to pad with.
        least: Least number of tokens of each row to run; it decides how sums round.
        arrangements: The layouts to try; one that served the model before spares the others.

    Raises:
        InvalidInput: No rows, a start outside its row, a row too long, or no such layer.
        NumericalFailure: The output of the model's blocks is not finite.
        UnsupportedModel: Blocks called again with what they were given give something else.
    """
    check_rows(rows, starts)
    check_length(view.model, max(map(len, rows)))
    (layer,) = view.numbered([layer])
    refused: Refused | None = None
    for arrange in arrangements:
        layout = arrange(rows, starts, padding, least)
        try:
            with evaluating(view.model), torch.no_grad():
                capture = _checked(view, layer, layout, arrange)
        except Refused as error:
            refused = error
            continue
        if arrange is not arrangements[0] and not layout.reuse:
            warn_uncached(view, stacklevel=2)
        return capture.looked_at()
    raise not_finite(view) if isinstance(refused, _NotFinite) else cannot_replay(view)


def _checked(view: ModelView, layer: int, layout: Layout, arrange: Arrange) -> BlockCapture:
    """Capture, and see that a replay of a few rows gives what the captured pass gave.

    Raises:
        Refused: It does not, or the pass itself gave something not finite.
    """
    capture, last = _capture(view, layer, layout, arrange)
    columns = layout.window.columns
    asked = layout.attention_mask.gather(1, columns).bool()  # (B, S), not padding
    if not bool(last[asked.to(last.device)].isfinite().all()):
        raise _NotFinite
    rows = _sample(capture)
    try:
        found = capture.select(rows).run_blocks()
    except FOREIGN:
        raise Refused from None
    real = asked[rows].to(last.device)  # (b, S)
    expected = last[torch.tensor(rows, device=last.device)][real]
    if not agrees(view, found.to(last.device)[real], expected):
        raise Refused
    return capture


def _sample(capture: BlockCapture) -> list[int]:
    """Choose a few rows to check."""
    return sorted({0, capture.rows // 2, capture.rows - 1})


class _NotFinite(Refused):
    """The model's own pass gave something not finite at a token that is not padding."""


def _capture(
    view: ModelView, layer: int, layout: Layout, arrange: Arrange
) -> tuple[BlockCapture, Tensor]:
    """Capture by one recorded pass; also return the last block's output in the window."""
    window, kept = layout.window, dict[str, Tensor]()
    cache = RecordingCache() if layout.reuse else None

    def entering(number: int, hidden: Tensor) -> None:
        if number == layer:
            kept["before"] = window.of(hidden)

    def leaving(number: int, hidden: Tensor) -> None:
        if number == layer:
            kept["after"] = window.of(hidden)
        if number == view.num_layers - 1:
            kept["last"] = window.of(hidden)

    def keep(tensor: Tensor) -> Slot:
        return cut(tensor, window)

    def at_site(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept["keys"] = layout.at_starts(args[0])
        kept["values"] = layout.at_starts(output)

    with hooked(view.down_projection(layer), at_site):
        recorder = Recorder(view, layout, layer, cache, keep, entering, leaving)
        found = recorder.run()
    padding = (layout.attention_mask == 0).gather(1, window.columns)
    capture = BlockCapture(
        view=view,
        layer=layer,
        keys=kept["keys"],
        values=kept["values"],
        at=layout.starts - window.first,
        arrange=arrange,
        _before=kept["before"],
        _after=kept["after"],
        _calls=found.calls,
        _cache=None if cache is None else PrefixCache(cache.checked(window), window),
        _padding=None if found.finite else padding,
    )
    return capture, kept["last"]


def adds_directly(view: ModelView, layer: int) -> bool:
    """Return whether an addition to a down-projection's output reaches its block's unchanged.

    So it is in most models; Gemma 2 and OLMo 2 put a norm between, Granite a factor.
    """
    (layer,) = view.numbered([layer])
    known = view.findings.get(("additive", layer))
    if known is not None:
        return known
    ids = [number % view.vocabulary for number in (1, 2, 3, 4)]
    return capture_blocks(view, [ids], [1], layer).is_additive
