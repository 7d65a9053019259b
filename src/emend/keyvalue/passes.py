"""Corrective passes: what one pass over the layers left, and what it moved, is put right together.

MEMIT goes over its layers once, each taking its share of what is missing at the last of them by
least squares (Meng et al. 2022, arXiv 2210.07229, equation 14). Two things are never looked at
again: what is still missing at the end, and what the changes did to everything else, which grows
with the number of edits. Beyond the paper, further passes do both. Layer by layer, with all other
layers as they are by now, the change E of the layer is added that minimises

    sum_i w_i |z_i - h_i - E k_i|^2 + (lambda / T) sum_t |h0_t - h_t - E k_t|^2 + ridge |E|^2

over the contexts i of the edits and T tokens t of ordinary texts, where k is the layer's key and h
the output of the last edited layer, both as they are now, z what is wanted there and h0 what was
there before any edit. It is block coordinate descent on one least-squares problem, up to what the
blocks between do to a change; and what they do is measured anew each time. Everything starts from
the base model and from all edits sorted by id: the result is a function of their set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend._progress import progress
from emend.errors import NumericalFailure
from emend.keyvalue._corpus import Source
from emend.keyvalue._windows import Layout, Position, batches_of
from emend.keyvalue.rows import context_rows
from emend.keyvalue.solvers import RIDGE
from emend.keyvalue.spread import Targets, upto_subject
from emend.keyvalue.stream import Reading, Stream
from emend.models import ModelView
from emend.patches import Dense, LowRank

WINDOW, ROWS = 64, 32
"""Tokens of a window of the texts, and windows in one pass."""

Basis = Callable[[int], "Tensor | None"]
"""For a layer the directions (inner, r), orthonormal, that a change may use; None for all."""


@dataclass(frozen=True)
class Held:
    """Tokens that shall have something at the output of the last edited layer.

    Attributes:
        stream: The rows that they stand in.
        wanted: For each part of the stream (N, width), what is wanted at its tokens.
        weights: For each part (N,), what a squared distance there counts.
    """

    stream: Stream
    wanted: Sequence[Tensor]
    weights: Sequence[Tensor]


def correct(
    view: ModelView,
    tokenizer: Any,
    targets: Targets,
    templates: Sequence[str],
    layers: Sequence[int],
    changes: Mapping[int, LowRank | Dense],
    source: Source,
    *,
    count: int,
    weight: float,
    tokens: int,
    basis: Basis,
) -> dict[int, LowRank | Dense]:
    """Go over the layers again.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        targets: What is wanted; see `seek_targets`.
        templates: Context templates, the bare one first: it counts half, the others the rest.
        layers: The layers, ascending.
        changes: What the first pass made of each layer.
        source: Texts whose tokens are to stay as they are.
        count: Passes to make.
        weight: Lambda: what all these tokens together count, where an edit counts 1.
        tokens: How many of them to take.
        basis: Directions that a layer's change may use.

    Returns:
        The change of each layer's down-projection.

    Raises:
        NumericalFailure: A solution is not finite.
    """
    held = [
        _contexts(view, tokenizer, targets, templates, layers),
        _texts(view, tokenizer, source, layers, targets.site, weight, tokens),
    ]
    found = dict(changes)
    for number in progress(range(count * len(layers)), "correcting"):
        layer = layers[number % len(layers)]
        for each in held:
            if layer == layers[0]:
                each.stream.restart()
            while each.stream.layer < layer:
                each.stream.advance(found.get(each.stream.layer))
        step = _step(held, layers[-1], found, targets.site, basis(layer))
        found[layer] = Dense((found[layer].dense().double() + step).float())
    return found


def _step(
    held: Sequence[Held],
    last: int,
    changes: Mapping[int, LowRank | Dense],
    site: str,
    basis: Tensor | None,
) -> Tensor:
    """The change (width, inner) float64 of the layer that the streams stand before."""
    gram, right = torch.zeros(()), torch.zeros(())
    for each in held:
        parts = zip(each.stream.parts(last, changes), each.wanted, each.weights, strict=True)
        for reading, wanted, weights in parts:
            keys = reading.keys.double()  # (N, inner)
            keys = keys if basis is None else keys @ basis  # (N, r)
            weighed = keys * weights[:, None]
            gram = gram + weighed.T @ keys  # (r, r)
            right = right + weighed.T @ (wanted - _reached(reading, site))  # (r, width)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed) or not bool(right.isfinite().all()):
        raise NumericalFailure("a corrective pass has no finite solution: make fewer passes")
    step = torch.cholesky_solve(right, factor).T
    return step if basis is None else step @ basis.T


def _contexts(
    view: ModelView,
    tokenizer: Any,
    targets: Targets,
    templates: Sequence[str],
    layers: Sequence[int],
) -> Held:
    """The subjects of all edits in all contexts: what was added in the bare one shall be added."""
    rows = context_rows(tokenizer, targets.edits, templates)
    count = len(templates)
    stream = Stream(
        view, [upto_subject(row) for each in rows for row in each], layers[0], layers[-1]
    )
    members = [torch.tensor(part) for part in stream.members]
    before = [_reached(part, targets.site) for part in stream.parts(layers[-1])]
    whole = torch.cat(before)[torch.cat(members).argsort()]  # (E * count, width)
    added = targets.wanted.double() - whole[::count]  # (E, width)
    shares = torch.full((count,), 0.5 / max(count - 1, 1), dtype=torch.float64)
    shares[0] = 0.5 if count > 1 else 1.0
    return Held(
        stream,
        [one + added[part // count] for one, part in zip(before, members, strict=True)],
        [shares[part % count] for part in members],
    )


def _texts(
    view: ModelView,
    tokenizer: Any,
    source: Source,
    layers: Sequence[int],
    site: str,
    weight: float,
    tokens: int,
) -> Held:
    """Ordinary tokens, which shall stay as they are."""
    rows: list[list[int]] = []
    for batch in batches_of(source, tokenizer, Layout(WINDOW, ROWS, tokens), Position()):
        ids, real = batch.input_ids, batch.real
        kept = torch.ones_like(ids) if real is None else real.reshape(ids.shape)
        rows += [row[:size] for row, size in zip(ids.tolist(), kept.sum(1).tolist(), strict=True)]
    stream = Stream(view, rows, layers[0], layers[-1], batch_size=ROWS, every=True)
    before = [_reached(part, site) for part in stream.parts(layers[-1])]
    total = sum(len(part) for part in before)
    weights = [torch.full((len(part),), weight / total, dtype=torch.float64) for part in before]
    return Held(stream, before, weights)


def _reached(reading: Reading, site: str) -> Tensor:
    """(N, width) float64, what stands where values stand."""
    return (reading.hidden if site == "block" else reading.outputs).double()
