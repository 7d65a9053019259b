"""Approximate effects of restoring, all at once by one backward pass (attribution patching).

Nanda 2023, "Attribution Patching"; Syed et al. 2023, arXiv 2310.10348; Kramár et al. 2024,
arXiv 2403.00745:

    P(h <- clean h) - P(h) is about (clean h - h) . dP/dh                 at the disturbed run

It is the first term of a series: good for small changes, and noise of three standard deviations
is not small. It can tell where to look, not how much is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from emend.errors import InvalidInput
from emend.locate._prompt import Prompt, Run
from emend.locate._recording import part_of
from emend.locate._restoring import windows
from emend.models.hooks import adding


def approximated(
    prompt: Prompt, run: Run, token: int, length: int, kinds: Sequence[str], window: int
) -> dict[str, Tensor]:
    """Estimated effects of restoring each kind at each token in each layer.

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
    """dP/dh by kind and layer, (D, S, width) each."""
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
