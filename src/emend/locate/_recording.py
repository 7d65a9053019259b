"""Recording a prompt's clean pass and its disturbed ones, and changing what parts put out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from emend.errors import EmendError, NumericalFailure, UnsupportedModel
from emend.locate._prompt import KeysValues, Prompt, Run
from emend.models import ModelView
from emend.models.hooks import hooked, wiped
from emend.models.layout import Layout, aligned, whole
from emend.models.partial import FOREIGN, Stop, agreement, run_layout
from emend.models.replay import (
    BlockCall,
    CachePlace,
    RecordingCache,
    Refused,
    hidden_of,
)


def opened(
    view: ModelView, ids: Sequence[int], first: int, noise: Tensor, sites: Sequence[str]
) -> tuple[Prompt, Run]:
    """A prompt's clean pass, and its disturbed ones.

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
            warnings.warn(
                f"{type(view.model).__name__} does not take cached keys and values as given: "
                "all tokens are recomputed in every run (exact, but slower)",
                stacklevel=2,
            )
        view.findings[("traces", 0)] = arrange is aligned
        return prompt, run
    raise UnsupportedModel(
        f"the blocks of {type(view.model).__name__} depend on more than their arguments, so they "
        "cannot be run apart from the model; take another architecture"
    )


def _recorded(
    view: ModelView, layout: Layout, first: int, last: int, sites: Sequence[str]
) -> Prompt:
    """The model's own pass over a prompt, with all that running parts of it again needs."""
    cache = RecordingCache()
    cache.armed = True
    calls: list[BlockCall] = []
    before: list[Tensor] = []
    states: list[Tensor] = []
    padding = layout.attention_mask == 0

    def change(leaf: Any) -> Any:
        return CachePlace() if leaf is cache else leaf

    def take(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, call = BlockCall.read(args, kwargs, change)
        hidden = wiped(hidden, padding)
        calls.append(call)
        before.append(hidden)
        name = call.hidden_name
        return ((hidden, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: hidden})

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        states.append(hidden_of(output).clone())
        if len(states) == view.num_layers:
            raise Stop

    with ExitStack() as stack:
        parts = stack.enter_context(watched(view, sites, 1))
        for block in view.layers:
            stack.enter_context(hooked(block, take, before=True, with_kwargs=True))
            stack.enter_context(hooked(block, keep))
        run_layout(view.model, layout, cache if layout.reuse else None)
    if not bool(states[-1][:, first : last + 1].isfinite().all()):
        raise NumericalFailure(
            f"what the blocks of {type(view.model).__name__} put out is not finite, expected "
            "numbers: look for weights that are not finite, or load the model in another dtype"
        )
    kept = _usual(cache, layout) if layout.reuse else None
    found = {site: tuple(ones) for site, ones in parts.items()}
    return Prompt(
        view, layout, first, last, Run(0, before[0], tuple(states), found, kept), tuple(calls)
    )


def _usual(cache: RecordingCache, layout: Layout) -> KeysValues:
    """What was recorded, checked to be of the usual shape."""
    tensors = [tensor for pair in cache.seen.values() for tensor in pair]
    usual = (4, 1, (layout.window.length,))
    shapes = [(tensor.ndim, tensor.shape[0], tuple(tensor.shape[2:3])) for tensor in tensors]
    if not tensors or any(shape != usual for shape in shapes):
        raise Refused
    return cache.seen


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
    """(D, T, width), input of the first block with noise added to the embeddings' output."""
    seen: list[Tensor] = []

    def take(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(BlockCall.find_hidden(args, kwargs)[0].clone())
        raise Stop

    with ExitStack() as stack:
        stack.enter_context(disturbing(prompt.view, noise, prompt.first))
        block = prompt.view.layers[0]
        stack.enter_context(hooked(block, take, before=True, with_kwargs=True))
        run_layout(prompt.view.model, _rows(prompt.layout, len(noise)), None)
    return wiped(seen[0], prompt.layout.attention_mask == 0)


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
        raise Stop

    view = prompt.view
    # Padded on the right, which no token before it can see.
    layout = whole([ids], [first], 0)
    with disturbing(view, noise[:1], first), hooked(view.layers[-1], keep):
        run_layout(view.model, layout, None)
    span = slice(prompt.first - run.first, prompt.last + 1 - run.first)
    found, expected = run.states[-1][:1, span], seen[0]
    difference = (found - expected).abs().max()
    if not bool(difference <= agreement(view, expected.dtype) * expected.abs().max()):
        raise Refused


def part_of(view: ModelView, site: str, layer: int) -> nn.Module:
    """The module whose output is that of a block's MLP or attention."""
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
