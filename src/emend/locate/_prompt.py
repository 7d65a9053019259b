"""A prompt's clean and disturbed runs, and running any part of it again.

The clean pass is the model's own, and it keeps what each block was called with. Noise changes
nothing before its first token, so that from there on only the tokens after it are run: keys and
values of earlier tokens are taken from the runs before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from emend.errors import EmendError
from emend.models import ModelView
from emend.models.hooks import hooked, stopping, wiped
from emend.models.replay import (
    FOREIGN,
    BlockCall,
    KeysValues,
    Layout,
    Recorder,
    RecordingCache,
    Refused,
    Window,
    agrees,
    aligned,
    cannot_replay,
    cut,
    each_leaf,
    hidden_of,
    not_finite,
    run_layout,
    warn_uncached,
    whole,
)

SITES = ("mlp", "attention")
"""The parts of a block whose outputs are restored or severed."""


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
        """Return the same for some of its rows."""
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
        """Return keys and values of all tokens, (R, heads, T, features); remember those given."""
        self.given[layer_idx] = (key_states, value_states)
        pairs = [(kept[layer_idx], count) for kept, count in self.segments]
        keys = [_repeated(pair[0], count, key_states) for pair, count in pairs]
        values = [_repeated(pair[1], count, value_states) for pair, count in pairs]
        return torch.cat([*keys, key_states], dim=2), torch.cat([*values, value_states], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Count the tokens before those that are run."""
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
        """Return the column from which a change at ``column`` makes tokens run again."""
        return column if self.layout.reuse else 0

    def cache(self, column: int, disturbed: Run | None = None) -> EarlierTokens | None:
        """Return keys and values of the tokens before ``column``, disturbed from `first` on."""
        if self.clean.kept is None:
            return None
        if disturbed is None or disturbed.kept is None:
            return EarlierTokens([(self.clean.kept, column)])
        count = column - disturbed.first
        return EarlierTokens([(self.clean.kept, disturbed.first), (disturbed.kept, count)])

    def blocks(self, column: int) -> list[Callable[[Tensor, EarlierTokens | None], Tensor]]:
        """Make, for each block, a function that runs the tokens from ``column`` on."""
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
        """Compute the probability of a token after the prompt, (R,).

        Args:
            hidden: (R, S, width), output of the last block.
            token: The token's number.
        """
        from_end = self.last - self.layout.window.length  # negative
        logits = self.view.logits(hidden[:, from_end])
        return (logits[:, token] - logits.logsumexp(-1)).exp()


def opened(
    view: ModelView, ids: Sequence[int], first: int, noise: Tensor, sites: Sequence[str]
) -> tuple[Prompt, Run]:
    """Run a prompt clean, and disturbed.

    Args:
        view: The model.
        ids: Tokens of the prompt.
        first: The first token that is disturbed.
        noise: (D, n, size of the embedding), what is added at that token and the next ones.
        sites: The parts of the blocks to keep the outputs of.

    Raises:
        NumericalFailure: What the model puts out is not finite.
        UnsupportedModel: Its blocks cannot be run apart from it.
    """
    found = view.findings.get(("traces", 0))
    for arrange in (aligned, whole):
        if arrange is aligned and found is False:
            continue
        layout = arrange([ids], [first], 0)
        shift = int(layout.starts[0]) - first
        try:
            prompt = _recorded(view, layout, first + shift, len(ids) - 1 + shift, sites)
            run = disturbed(prompt, noise, sites)
            if found is None:
                _check(prompt, ids, first, noise, run)
        except EmendError:  # some are among FOREIGN too
            raise
        except (Refused, *FOREIGN):
            continue
        if found is None and arrange is whole:
            warn_uncached(view, stacklevel=2)
        view.findings[("traces", 0)] = arrange is aligned
        return prompt, run
    raise cannot_replay(view)


def _recorded(
    view: ModelView, layout: Layout, first: int, last: int, sites: Sequence[str]
) -> Prompt:
    """Run the model over a prompt, and keep all that running parts of it again needs."""
    cache = RecordingCache() if layout.reuse else None
    before: list[Tensor] = []
    states: list[Tensor] = []

    def entering(layer: int, hidden: Tensor) -> None:
        if layer == 0:
            before.append(hidden)

    def leaving(_layer: int, hidden: Tensor) -> None:
        states.append(hidden.clone())

    with watched(view, sites, 1) as parts:
        recorder = Recorder(view, layout, 0, cache, None, entering, leaving)
        recording = recorder.run()
    if not bool(states[-1][:, first : last + 1].isfinite().all()):
        raise not_finite(view)
    kept = None if cache is None else cache.checked(layout.window)
    found = {site: tuple(ones) for site, ones in parts.items()}
    clean = Run(0, before[0], tuple(states), found, kept)
    return Prompt(view, layout, first, last, clean, recording.calls)


def disturbed(prompt: Prompt, noise: Tensor, sites: Sequence[str]) -> Run:
    """Run the prompt from its first disturbed token on, with noise at its embeddings.

    Args:
        prompt: The prompt.
        noise: (D, n, size of the embedding).
        sites: The parts of the blocks to keep the outputs of.

    Returns:
        What D rows put out.
    """
    view = prompt.view
    start = prompt.start(prompt.first)
    before = _embedded(prompt, noise)[:, start:]
    hidden, cache = before, prompt.cache(prompt.first)
    states: list[Tensor] = []
    with watched(view, sites, len(noise)) as parts:
        for run in prompt.blocks(prompt.first):
            hidden = run(hidden, cache)
            states.append(hidden.clone())
    found = {site: tuple(ones) for site, ones in parts.items()}
    return Run(start, before, tuple(states), found, None if cache is None else cache.given)


def _embedded(prompt: Prompt, noise: Tensor) -> Tensor:
    """Compute the first block's input with noise at the embeddings, (D, T, hidden_size)."""
    seen: list[Tensor] = []

    def entering(_layer: int, hidden: Tensor) -> None:
        seen.append(hidden.clone())

    layout = _rows(prompt.layout, len(noise))
    with disturbing(prompt.view, noise, prompt.first):
        Recorder(prompt.view, layout, entering=entering).run(0, run_last=False)
    return seen[0]


def _rows(layout: Layout, count: int) -> Layout:
    ids, mask = (one.repeat(count, 1) for one in (layout.input_ids, layout.attention_mask))
    return Layout(ids, mask, layout.starts.repeat(count), layout.window, layout.reuse)


@contextmanager
def disturbing(view: ModelView, noise: Tensor, first: int) -> Generator[None, None, None]:
    """Add noise (D, n, size) to what the embedding of D rows puts out, from column `first` on."""
    columns = slice(first, first + noise.shape[1])

    def disturb(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, columns] += noise.to(output)
        return output

    with hooked(view.embeddings, disturb):
        yield


def _check(prompt: Prompt, ids: Sequence[int], first: int, noise: Tensor, run: Run) -> None:
    """See that what was replayed is what the model itself gives, for one disturbed row.

    Raises:
        Refused: It is not.
    """
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(hidden_of(output)[:, first : len(ids)].clone())

    view = prompt.view
    # Padded on the right, which no token before it can see.
    layout, last = whole([ids], [first], 0), view.layers[-1]
    with disturbing(view, noise[:1], first), hooked(last, keep), stopping(last):
        run_layout(view.model, layout, None)
    span = slice(prompt.first - run.first, prompt.last + 1 - run.first)
    if not agrees(view, run.states[-1][:1, span], seen[0]):
        raise Refused


def part_of(view: ModelView, site: str, layer: int) -> nn.Module:
    """Return the module whose output is that of a block's MLP or attention."""
    return view.down_projection(layer) if site == "mlp" else view.attention(layer)


@contextmanager
def watched(
    view: ModelView, sites: Sequence[str], rows: int
) -> Generator[dict[str, list[Tensor]], None, None]:
    """Keep what the parts of the blocks put out while the block runs, (rows, S, width) each."""
    found: dict[str, list[Tensor]] = {site: [] for site in sites}

    def keeping(site: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            apart = hidden_of(output)
            found[site].append(apart.reshape(rows, -1, apart.shape[-1]).clone())

        return keep

    with ExitStack() as stack:
        for site in sites:
            for layer in range(view.num_layers):
                stack.enter_context(hooked(part_of(view, site, layer), keeping(site)))
        yield found
