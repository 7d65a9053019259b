"""Knowledge neurons: units of the MLPs that carry a fact, found by integrated gradients.

Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv 2104.08696.

    Attr_i = a_i * 1/S sum_s dP_x(y | a = s/S a) / da_i                       (equation 5)

    paper      here       what
    w_i^(l)    a          activation of unit i of layer l: an entry of the down-projection's input
    alpha      s / S      all units of one layer are scaled together
    m          steps      number S of steps of the sum
    P_x(y)                probability of the answer's token after the prompt x

Exact and cheap: the down-projection is linear, so scaling its input by s/S adds (s/S - 1) W a to
its output, and dP/da_i is W_i . dP/d(output). One backward to the output, of the residual's
width, serves for all units and all steps at once; and only the last token is run again, through
the blocks from that layer up (`emend.models.replay`).

An answer of several tokens is asked token by token, each after the true ones before it; the
attribution is the mean over them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emend._progress import progress
from emend.errors import InvalidInput, NumericalFailure
from emend.models import ModelView, join_target, join_targets
from emend.models.forward import evaluating
from emend.models.hooks import frozen
from emend.models.replay import BlockCapture, capture_blocks

Neuron = tuple[int, int]
"""(layer, unit)."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Tokens of a prompt, and of the answer after it."""

ROWS = 64
"""Rows that are captured together."""


def attribute(
    view: ModelView,
    tokenizer: Any,
    prompt: str,
    answer: str,
    *,
    steps: int = 20,
    layers: Sequence[int] | None = None,
) -> Tensor:
    """Attribute the probability of an answer to units.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        prompt: A text to be continued.
        answer: What is asked about; see `join_target` for the space between.
        steps: Steps S of the integration.
        layers: Blocks to look at; None for those of `same_size_layers`.

    Returns:
        (layers, inner) float32 on the CPU; the sum over a layer's units is about the
        probability that goes when all of them are set to zero.

    Raises:
        InvalidInput: Fewer than one step, a layer that the model has not, or layers of several
            sizes.
        NumericalFailure: An attribution is not finite.
    """
    pair = join_target(tokenizer, prompt, answer)
    return attribute_tokens(view, [pair], steps=steps, layers=layers)[0]


def attribute_tokens(
    view: ModelView,
    pairs: Sequence[Pair],
    *,
    steps: int = 20,
    layers: Sequence[int] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Attribute like `attribute`, for many prompts and answers given as tokens.

    Args:
        view: The model.
        pairs: P pairs of prompt and answer.
        steps: Steps S of the integration.
        layers: Blocks to look at; None for those of `same_size_layers`.
        batch_size: Rows of one token in a pass.

    Returns:
        (P, layers, inner) float32 on the CPU.

    Raises:
        EmendError: As `attribute`.
    """
    chosen = _layers(view, steps, layers)
    rows = [(*prompt, *answer[:t]) for prompt, answer in pairs for t in range(len(answer))]
    tokens = torch.tensor([token for _, answer in pairs for token in answer])
    counts = [len(answer) for _, answer in pairs]
    found: list[Tensor] = []
    with evaluating(view.model), frozen(view.model):
        for layer in progress(chosen, "attributing to units"):
            parts = [
                _of_layer(view, layer, rows[i : i + ROWS], tokens[i : i + ROWS], steps, batch_size)
                for i in range(0, len(rows), ROWS)
            ]
            means = [part.mean(0) for part in torch.cat(parts).split(counts)]
            found.append(torch.stack(means))  # (P, inner)
    attributions = torch.stack(found, dim=1)
    if not bool(attributions.isfinite().all()):
        raise NumericalFailure(
            "attributions to units are not finite: check the model's weights, or load it in float32"
        )
    return attributions


def same_size_layers(view: ModelView) -> tuple[int, ...]:
    """List the editable blocks that have as many units as most of them, ascending."""
    sizes = Counter(view.intermediate_size(layer) for layer in view.editable)
    ((most, _),) = sizes.most_common(1)
    return tuple(layer for layer in view.editable if view.intermediate_size(layer) == most)


def _layers(view: ModelView, steps: int, layers: Sequence[int] | None) -> list[int]:
    if steps < 1:
        raise InvalidInput(f"steps is {steps}, expected at least 1")
    chosen = view.numbered(same_size_layers(view) if layers is None else layers)
    sizes = sorted({view.intermediate_size(layer) for layer in chosen})
    if len(sizes) > 1:
        raise InvalidInput(
            f"the layers have {' and '.join(map(str, sizes))} units, expected as many in each: "
            "ask about layers of one size at a time"
        )
    return list(chosen)


def _of_layer(
    view: ModelView,
    layer: int,
    rows: Sequence[Sequence[int]],
    tokens: Tensor,
    steps: int,
    batch_size: int,
) -> Tensor:
    """Attribute each row's next token to the units at its last token, (R, inner) float32."""
    capture = capture_blocks(view, rows, [len(row) - 1 for row in rows], layer)
    down = view.down_projection(layer)
    size = max(batch_size // steps, 1)
    found: list[Tensor] = []
    for first in range(0, len(rows), size):
        chosen = list(range(first, min(first + size, len(rows))))
        part = capture.select(chosen)
        gradient = _mean_gradient(part, down, tokens[chosen], steps)  # (n, width)
        with torch.enable_grad():
            keys = part.keys.detach().requires_grad_(True)  # (n, inner)
            (slope,) = torch.autograd.grad(down(keys), keys, gradient.to(keys.dtype))
        found.append((keys.detach().float() * slope.float()).cpu())
    return torch.cat(found)


def _mean_gradient(capture: BlockCapture, down: nn.Module, tokens: Tensor, steps: int) -> Tensor:
    """Average dP / d(output of the down-projection) over the steps, (n, hidden_size)."""
    count = capture.rows
    with torch.no_grad():  # what the units put out, without the bias
        outputs = down(capture.keys) - down(torch.zeros_like(capture.keys))
    scales = torch.arange(1, steps + 1, device=outputs.device) / steps - 1
    delta = (scales[None, :, None] * outputs[:, None].float()).flatten(0, 1)  # (n * S, width)
    delta = delta.detach().requires_grad_(True)
    repeated = capture.select([row for row in range(count) for _ in range(steps)])
    with torch.enable_grad():
        hidden = repeated.run_at(delta, torch.arange(count * steps), repeated.at)
        chances = capture.view.logits(hidden).softmax(-1)  # (n * S, vocabulary)
        wanted = tokens.to(chances.device).repeat_interleave(steps)
        total = chances.gather(-1, wanted[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, delta)
    return gradient.reshape(count, steps, -1).mean(1)


def coarse(
    attribution: Tensor, threshold: float = 0.2, layers: Sequence[int] | None = None
) -> list[Neuron]:
    """Choose units whose attribution is over ``threshold`` times the largest; at least that one.

    Args:
        attribution: (layers, inner), from `attribute`.
        threshold: The share t, from 0 to 1.
        layers: The blocks that its rows stand for; None for all.
    """
    largest = attribution.max()
    chosen = attribution > threshold * largest if largest > 0 else attribution == largest
    chosen |= attribution == largest
    rows = range(len(attribution)) if layers is None else layers
    return [(rows[layer], unit) for layer, unit in chosen.nonzero().tolist()]


def refine(found: Sequence[Sequence[Neuron]], share: float = 0.5) -> list[Neuron]:
    """Choose units found for more than ``share`` of the prompts, in ascending order.

    Where there are none, ``share`` is lowered by steps of 0.05 until there are some.
    """
    counts = Counter(neuron for neurons in found for neuron in neurons)
    while counts:
        kept = sorted(neuron for neuron, n in counts.items() if n > share * len(found))
        if kept:
            return kept
        share -= 0.05
    return []


def knowledge_neurons(
    view: ModelView,
    tokenizer: Any,
    prompts: Sequence[str],
    answer: str,
    *,
    threshold: float = 0.2,
    share: float = 0.5,
    others: Sequence[tuple[Sequence[str], str]] = (),
    steps: int = 20,
    layers: Sequence[int] | None = None,
) -> list[Neuron]:
    """Find the units that carry a fact, from several wordings of it.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        prompts: Wordings of the fact up to the answer; about ten are recommended.
        answer: Its answer.
        threshold: t; a unit of one prompt's coarse set has more than t of the largest attribution.
        share: p; a unit is kept when it is in the coarse sets of more than p of the prompts.
        others: Prompts and answers of other facts; what is found for them too is dropped.
        steps: As for `attribute`.
        layers: As for `attribute`.

    Returns:
        (layer, unit) in ascending order.

    Raises:
        InvalidInput: No prompts.
        EmendError: As `attribute`.
    """
    if not prompts:
        raise InvalidInput("no prompts are given, expected at least one wording of the fact")
    rows = _layers(view, steps, layers)

    def find(texts: Sequence[str], said: str) -> list[Neuron]:
        pairs = join_targets(tokenizer, list(texts), [said] * len(texts))
        maps = attribute_tokens(view, pairs, steps=steps, layers=rows)
        return refine([coarse(one, threshold, rows) for one in maps], share)

    shared = {neuron for texts, said in others for neuron in find(texts, said)}
    return [neuron for neuron in find(prompts, answer) if neuron not in shared]
