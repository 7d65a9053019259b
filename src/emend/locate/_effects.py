"""Effects of restoring clean outputs in a disturbed run: exact, and approximate.

**Exact**: all restorations at one token in one batch. Restoring a block's output at token t leaves
every token before t as it is, and every block up to that one. So the tokens from t on are run block
by block, and the rows of each restored layer join the batch where they begin to differ: what was
restored in layer l is run from layer l + 1 up.

**Approximate**: all at once by one backward pass (attribution patching; Nanda 2023, "Attribution
Patching"; Syed et al. 2023, arXiv 2310.10348; Kramár et al. 2024, arXiv 2403.00745):

    P(h <- clean h) - P(h) is about (clean h - h) . dP/dh                 at the disturbed run

It is the first term of a series: good for small changes, and noise of three standard deviations
is not small. It can show where to look, not how much is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from emend.errors import InvalidInput
from emend.locate._prompt import Prompt, Run, part_of
from emend.models.hooks import adding, putting


def windows(depth: int, window: int) -> list[tuple[int, int]]:
    """Give the layers restored with each layer, from the first to before the last.

    As published: [max(0, l - window // 2), min(depth, l + ceil(window / 2))).
    """
    before, after = window // 2, -(-window // 2)
    return [(max(0, layer - before), min(depth, layer + after)) for layer in range(depth)]


def restored_states(
    prompt: Prompt, run: Run, column: int, token: int, severed: str | None
) -> Tensor:
    """Compute P(token) with the clean output of each block put back at one column, (layers, D).

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
    """Compute P(token) with a part's clean output in some blocks put back at one column.

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


def approximated(
    prompt: Prompt, run: Run, token: int, length: int, kinds: Sequence[str], window: int
) -> dict[str, Tensor]:
    """Estimate the effects of restoring each kind at each token in each layer.

    Args:
        prompt: The prompt.
        run: Its disturbed passes, D rows.
        token: The answer.
        length: The prompt's tokens, T.
        kinds: Some of "state", "mlp" and "attention".
        window: Layers restored together, for the last two; their estimates are added.

    Returns:
        (T, layers) by kind, on the CPU.

    Raises:
        InvalidInput: A severed kind, which has no such estimate.
    """
    for kind in kinds:
        if kind.startswith("severed"):
            raise InvalidInput(
                f"there is no approximation of {kind}, expected state, mlp or attention: "
                "leave approximate out"
            )
    size = prompt.last + 1 - prompt.first
    columns = slice(prompt.first, prompt.first + size)
    rerun = slice(prompt.first - run.first, prompt.first - run.first + size)
    found: dict[str, Tensor] = {}
    for kind, slopes in _slopes(prompt, run, token, kinds).items():
        clean = prompt.clean.states if kind == "state" else prompt.clean.parts[kind]
        disturbed = run.states if kind == "state" else run.parts[kind]
        effects = torch.zeros(length, prompt.view.num_layers, dtype=slopes[0].dtype)
        for layer, slope in enumerate(slopes):
            change = clean[layer][:, columns] - disturbed[layer][:, rerun]
            effects[length - size :, layer] = (change * slope[:, rerun]).sum(-1).mean(0).cpu()
        found[kind] = effects if kind == "state" else _summed(effects, window)
    return found


def _summed(effects: Tensor, window: int) -> Tensor:
    spans = windows(effects.shape[1], window)
    return torch.stack([effects[:, first:end].sum(1) for first, end in spans], dim=1)


def _slopes(prompt: Prompt, run: Run, token: int, kinds: Sequence[str]) -> dict[str, list[Tensor]]:
    """Compute dP/dh by kind and layer, (D, S, hidden_size) each."""
    view = prompt.view
    leaves: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    with torch.enable_grad():
        hidden, cache = run.before, prompt.cache(prompt.first)
        for layer, block in enumerate(prompt.blocks(prompt.first)):
            parts = {kind: torch.zeros_like(hidden).requires_grad_() for kind in kinds}
            for kind, leaf in parts.items():
                leaves[kind].append(leaf)
            with ExitStack() as stack:
                for kind, leaf in parts.items():
                    if kind != "state":
                        stack.enter_context(adding(part_of(view, kind, layer), leaf))
                hidden = block(hidden, cache)
            hidden = hidden + parts["state"] if "state" in parts else hidden
        total = prompt.chances(hidden, token).sum()
    flat = [leaf for kind in kinds for leaf in leaves[kind]]
    slopes = list(torch.autograd.grad(total, flat))
    depth = view.num_layers
    return {kind: slopes[i * depth : (i + 1) * depth] for i, kind in enumerate(kinds)}
