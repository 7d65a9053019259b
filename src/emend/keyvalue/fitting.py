"""Fitting the changes of several layers together, so that none leaves what another must repair.

MEMIT writes layer by layer: each solves a least squares of its own, as if what it moves elsewhere
stayed as small on its way up. With very many edits it does not: what four layers move at subjects
that were not edited adds up, and nobody takes it back. Here the changes D_l of all edited layers
minimise together, through the blocks themselves,

    mean_i |h(s_i) - h0(s_i) - delta_i|^2  +  weight * mean_t |h(t) - h0(t)|^2

    h, h0      output of the last edited block, with the changes and without
    s_i        the subject's last token of edit i, in one of its contexts
    delta_i    z_i - h0(s_i) in the bare prompt, z_i being the value that was sought
    t          the tokens of texts, up to where one names a subject of the edits

by Adam on X_l, where D_l = X_l^T M_l^T and M_l (inner, r) whitens the layer's keys. The first term
is MEMIT's (arXiv 2210.07229, equation 8) and the second its weight on other keys, each taken of
the stream instead of one layer's output. That is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from emend._progress import progress
from emend.errors import NumericalFailure
from emend.keyvalue._adam import Adam
from emend.keyvalue._corpus import Source
from emend.keyvalue._fitted import Draws, Run, preserved_rows
from emend.keyvalue.rows import context_rows
from emend.keyvalue.spread import Targets
from emend.keyvalue.stream import Stream
from emend.models import ModelView
from emend.models.positions import pad_id
from emend.patches import Dense

Whitener = Callable[[int], Tensor]
"""Of a layer, M (inner, r) float64: D moves only directions of M, each as much as another."""


@dataclass(frozen=True)
class Fitting:
    """Settings of `fit_together`.

    Attributes:
        steps: Steps of Adam.
        weight: Weight of a token of texts, against an edit.
        rate: Part of a wanted change that the first half of the steps can make at one key; it
            falls to 0 over the second.
        seed: Draws the contexts and texts of each step.
    """

    steps: int
    weight: float = 10.0
    rate: float = 0.5
    seed: int = 0


def fit_together(
    view: ModelView,
    tokenizer: Any,
    targets: Targets,
    templates: Sequence[str],
    layers: Sequence[int],
    source: Source,
    whitener: Whitener,
    settings: Fitting,
) -> dict[int, Dense]:
    """The changes of all layers that write the targets and move least of what texts show.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        targets: What is wanted, with edits sorted by id.
        templates: Context templates, the bare one first.
        layers: The layers, ascending.
        source: Texts of what is preserved.
        whitener: See `Whitener`.
        settings: See `Fitting`.

    Raises:
        InvalidInput: Every text begins with a subject of the edits, so that nothing is preserved.
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    run = Run(view, layers, targets.site, pad_id(tokenizer))
    contexts = [
        [row.upto_subject for row in each]
        for each in context_rows(tokenizer, targets.edits, templates)
    ]
    texts = preserved_rows(tokenizer, source, targets.edits)
    bare = Stream(view, [each[0] for each in contexts], layers[-1], layers[-1]).read()
    moves = targets.wanted.float() - bare.at(targets.site).float()  # (E, width)
    size = float(moves.norm(dim=1).mean())
    whiteners = {layer: whitener(layer).float().to(view.device(layer)) for layer in layers}
    found = {layer: m.new_zeros(m.shape[1], view.width) for layer, m in whiteners.items()}
    optimizers = {layer: Adam(x, 0.0) for layer, x in found.items()}
    draws = Draws(contexts, texts, moves / size, settings.weight, settings.seed)
    for step in progress(range(settings.steps), "fitting all layers"):
        changes = {layer: whiteners[layer] @ x for layer, x in found.items()}  # (inner, width)
        gradients = run.gradients(changes, draws.draw(), size)
        if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
            raise NumericalFailure(
                f"fitting all layers gave a loss that is not finite at step {step + 1}: "
                "lower fit_rate"
            )
        rate = settings.rate * size / view.width**0.5 * min(1.0, 2 * (1 - step / settings.steps))
        for layer, gradient in gradients.items():
            optimizers[layer].learning_rate = rate / len(found[layer])
            down = whiteners[layer].T @ gradient  # (r, width)
            found[layer] = optimizers[layer].step(found[layer], down)
    return {layer: Dense((whiteners[layer].double() @ x.double()).T) for layer, x in found.items()}
