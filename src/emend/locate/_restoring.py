"""Exact effects of restoring: all restorations at one token in one batch.

Restoring a block's output at token t leaves alone every token before t, and every block up to
that one. So the tokens from t on are run block by block, and the rows of each restored layer join
the batch where they begin to differ: what was restored in layer l is run from layer l + 1 up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from emend.locate._prompt import Prompt, Run
from emend.locate._recording import part_of
from emend.models.hooks import putting


def windows(depth: int, window: int) -> list[tuple[int, int]]:
    """For each layer the layers restored with it, from the first to before the last.

    As published: [max(0, l - window // 2), min(depth, l + ceil(window / 2))).
    """
    before, after = window // 2, -(-window // 2)
    return [(max(0, layer - before), min(depth, layer + after)) for layer in range(depth)]


def restored_states(
    prompt: Prompt, run: Run, column: int, token: int, severed: str | None
) -> Tensor:
    """(layers, D), P(token) with the clean output of each block put back at one column.

    Args:
        prompt: The prompt.
        run: Its disturbed passes, D rows.
        column: Column of the token that is restored.
        token: The answer.
        severed: "mlp" or "attention": what these put out at that column stays as disturbed in
            all later blocks, so that it cannot pass on what was restored. None severs nothing.
    """
    view, draws = prompt.view, len(run.before)
    at, offset = column - prompt.start(column), prompt.start(column) - run.first
    blocks, cache = prompt.blocks(column), prompt.cache(column, run)
    hidden = run.before[:0, offset:]
    for layer in range(1, view.num_layers):
        joining = run.states[layer - 1][:, offset:].clone()
        joining[:, at] = prompt.clean.states[layer - 1][:, column]
        hidden = torch.cat([hidden.to(joining.device), joining])
        with ExitStack() as stack:
            if severed is not None:
                values = run.parts[severed][layer][:, offset + at].repeat(layer, 1)
                site = part_of(view, severed, layer)
                stack.enter_context(putting(site, len(hidden), slice(None), at, values))
            hidden = blocks[layer](hidden, cache)
    # Of the last block nothing but the last token is read.
    last = prompt.clean.states[-1] if column == prompt.last else run.states[-1]
    found = [prompt.chances(last, token).expand(draws)[None]]
    if view.num_layers > 1:
        found.insert(0, prompt.chances(hidden, token).reshape(view.num_layers - 1, draws))
    return torch.cat([one.to(found[0].device) for one in found])


def restored_parts(
    prompt: Prompt, run: Run, column: int, token: int, site: str, spans: Sequence[tuple[int, int]]
) -> Tensor:
    """(layers, D), P(token) with the clean output of a part of some blocks put back at one column.

    Args:
        prompt: The prompt.
        run: Its disturbed passes, D rows.
        column: Column of the token that is restored.
        token: The answer.
        site: "mlp" or "attention".
        spans: For each row of the result the blocks that are restored; see `windows`.
    """
    draws = len(run.before)
    at, offset = column - prompt.start(column), prompt.start(column) - run.first
    blocks, cache = prompt.blocks(column), prompt.cache(column, run)
    hidden = run.before[:0, offset:]
    for layer, block in enumerate(blocks):
        before = run.before if layer == 0 else run.states[layer - 1]
        joining = sum(first == layer for first, _ in spans)
        hidden = torch.cat([hidden.to(before.device), before[:, offset:].repeat(joining, 1, 1)])
        active = len(hidden) // draws
        over = sum(end <= layer for _, end in spans[:active])
        clean = prompt.clean.parts[site][layer][:, column]
        values = clean.expand((active - over) * draws, -1)
        chosen = slice(over * draws, active * draws)
        with putting(part_of(prompt.view, site, layer), len(hidden), chosen, at, values):
            hidden = block(hidden, cache)
    return prompt.chances(hidden, token).reshape(len(spans), draws)
