"""Fitting the changes of several layers together, so that none leaves what another must repair.

MEMIT writes layer by layer: each solves a least squares of its own, as if what it moves elsewhere
stayed as small on its way up. With very many edits it does not: what four layers move at subjects
that were not edited adds up, and nobody takes it back. Here the changes D_l of all edited layers
minimise together, through the blocks themselves,

    mean_i |h(s_i) - h0(s_i) - delta_i|^2  +  weight * mean_t |h(t) - h0(t)|^2

    h, h0      output of the last edited block, with the changes and without
    s_i        the subject's last token of edit i, in one of its contexts or a text that names it
    delta_i    z_i - h0(s_i) in the bare prompt, z_i being the value that was sought
    t          the tokens of texts, up to where one names a subject of the edits

by Adam on X_l, where D_l = X_l^T M_l^T and M_l (inner, r) whitens the layer's keys. The first term
is MEMIT's (arXiv 2210.07229, equation 8) and the second its weight on other keys, each taken of
the stream instead of one layer's output.

Where a value cannot be reached, what is missing is as likely to change what is said as not. So
further steps add what values were sought for, now with all changes in their places:

    1/4 (mean_i max(-log p(o_i | x_i) - 0.3, 0)  +  1/E sum_q max(-log p(o_q | q) - 0.3, 0))

    o_i, x_i   target and prompt of edit i of E, in one of its contexts
    o_q, q     what was said before to other prompts about the subjects of edits, which is kept

That is all ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from emend._progress import progress
from emend.editing._adam import Adam
from emend.editing._answering import Answers, said_before, said_targets
from emend.editing._corpus import Source
from emend.editing._fitted import Draws, States, read_texts
from emend.editing.rows import context_rows
from emend.editing.spread import Targets
from emend.editing.stream import Stream
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.positions import pad_id
from emend.patches import Dense

Whitener = Callable[[int], Tensor]
"""Of a layer, M (inner, r) float64: D moves only directions of M, each as much as another."""


ANSWERS = 0.25
"""Weight of what is said, against the edits' states, which carry over to other wordings."""

SLOWER = 0.5
"""The steps that fit what is said begin at so much of the rate: they have less far to go."""


@dataclass(frozen=True)
class Fitting:
    """Settings of `fit_together`.

    Attributes:
        steps: Steps of Adam that fit states alone.
        weight: Weight of a token of texts, against an edit.
        rate: Part of a wanted change that the first half of the steps can make at one key; it
            falls to 0 over the second.
        answers: Further steps, which also fit what is said.
        preserve: Prompts, each with one "{}" for the subject, whose answers these keep.
        seed: Draws the contexts and texts of each step.
    """

    steps: int
    weight: float = 10.0
    rate: float = 0.5
    answers: int = 0
    preserve: tuple[str, ...] = ()
    seed: int = 0


class Part(Protocol):
    """A part of what is fitted."""

    def backward(self, changes: Mapping[int, Tensor]) -> None:
        """Add the gradient of what a step looks at to that of each change (inner, width)."""
        ...


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
        layers: The layers; negative numbers count from the end.
        source: Texts of what is preserved.
        whitener: See `Whitener`.
        settings: See `Fitting`.

    Raises:
        InvalidInput: Every text begins with a subject of the edits, so that nothing is preserved.
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    layers = sorted(view.numbered(layers))
    rows = context_rows(tokenizer, targets.edits, templates)
    read = read_texts(tokenizer, source, targets.edits)
    contexts = [
        [*(row.upto_subject for row in each), *read.naming.get(edit.subject, [])]
        for edit, each in zip(targets.edits, rows, strict=True)
    ]
    last = layers[-1]
    bare = Stream(view, [each[0] for each in contexts], last, last).read()
    moves = targets.wanted.float() - bare.at(targets.site).float()  # (E, width)
    size = float(moves.norm(dim=1).mean()) or 1.0  # all zero where every target is said already
    draws = Draws(contexts, read.preserved, moves / size, settings.weight, settings.seed)
    place = view.layers[last] if targets.site == "block" else view.down_projection(last)
    padding = pad_id(tokenizer)
    states = States(view, place, padding, draws, size)
    whiteners = {layer: whitener(layer).float().to(view.device(layer)) for layer in layers}
    found = {layer: m.new_zeros(m.shape[1], view.hidden_size) for layer, m in whiteners.items()}
    rate = settings.rate * size / view.hidden_size**0.5
    _descend(found, whiteners, [states], settings.steps, rate, "fitting all layers")
    if settings.answers:
        kept = said_before(view, tokenizer, targets.edits, templates, settings.preserve)
        answers = Answers(view, padding, said_targets(rows), kept, ANSWERS, settings.seed)
        parts = [states, answers]
        _descend(found, whiteners, parts, settings.answers, SLOWER * rate, "fitting to answers")
    return {layer: Dense((whiteners[layer].double() @ x.double()).T) for layer, x in found.items()}


def _descend(
    found: dict[int, Tensor],
    whiteners: Mapping[int, Tensor],
    parts: Sequence[Part],
    steps: int,
    rate: float,
    doing: str,
) -> None:
    """Go on from what was found (r, width) in each layer, by Adam."""
    optimizers = {layer: Adam(x, 0.0) for layer, x in found.items()}
    for step in progress(range(steps), doing):
        changes = {
            layer: (whiteners[layer] @ x).requires_grad_() for layer, x in found.items()
        }  # (inner, width)
        for part in parts:
            part.backward(changes)
        for layer, change in changes.items():
            assert change.grad is not None
            if not bool(change.grad.isfinite().all()):
                raise NumericalFailure(
                    f"fitting all layers gave a loss that is not finite at step {step + 1}: "
                    "lower fit_rate"
                )
            slowing = min(1.0, 2 * (1 - step / steps))
            optimizers[layer].learning_rate = rate * slowing / len(found[layer])
            down = whiteners[layer].T @ change.grad  # (r, width)
            found[layer] = optimizers[layer].step(found[layer], down)
