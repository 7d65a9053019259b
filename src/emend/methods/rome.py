"""ROME: an MLP layer is a linear memory; write one key-value pair into it.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262; R-ROME,
Gupta et al. 2024, "Rebuilding ROME", arXiv 2403.07175.

    W' = W + ((v* - W k*) / (u . k*)) u^T,    u = C^-1 k*                    (ROME, equation 2)
    W' = W + delta u^T,    u = C^-1 K (K^T C^-1 K + lambda S)^-1 1           (here)

    paper   here                                     what
    k*, K   value.keys                               keys at the subject's last token, by context
    v*      value.target = value.initial + delta     target value of the MLP's output there
    C       session.inverse                          covariance of keys
    u       `ridge.respond`, `ridge.directions`      direction along which W changes
    S       diagonal of K^T C^-1 K                   response of each key to itself

Deviations, by default:

- The optimisation adds delta to the output in each context, so delta is written, along the one
  direction that responds with 1 to the key of every context and least to all other keys. The paper
  writes at one key: the published code takes that of the bare prompt in parts of the equation,
  R-ROME the mean of all. Where a subject begins its text these are far apart, and an edit at the
  mean hardly acts at the bare prompt.
- What the unedited model states of the subject is preserved, and a target that is probable enough
  adds no loss: the paper's objective raises its probability without end, at the expense of what
  else the model knows of the subject.
- Six contexts, as MEMIT takes them, in place of 21: more bring nothing that was measured.
- L-BFGS in place of Adam; C has a ridge, and systems are solved in float64 by a Cholesky factor
  that is cached on disk.

``original=True`` gives the published form. Several edits at once are each optimised on the unedited
model, and the patch is the sum of their changes: they do not know of one another, so that any can
be taken out again; for many edits with like subjects take a method that writes them jointly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from emend._settings import NotNegative, Positive
from emend.editing import Search, Session, Value, rank_one, respond
from emend.editing.contexts import BEGUN, ROME_CONTEXTS
from emend.editing.ridge import directions
from emend.errors import NumericalFailure
from emend.methods._method import method
from emend.patches import LowRank, WeightPatch

Solve = Callable[[Tensor], Tensor]
"""C^-1 k of keys, (E, intermediate_size) -> (E, intermediate_size) float64."""


@method(
    title="ROME: one fact as one rank-one change of one MLP, which keeps the subject's other facts",
    paper="Meng et al. 2022, arXiv 2202.05262; Gupta et al. 2024, arXiv 2403.07175",
    when="one fact, or a few about different subjects; exact, quick and easy to take back",
    avoid="many facts at once, or facts of like subjects: its edits do not know of one another",
    continues="additive",
    order_invariant=True,
    by_subject=True,
    aims=True,
)
def rome(
    session: Session,
    search: Search = Search(),
    *,
    layer: int | None = None,
    clamp: Positive | None = None,
    preserve_factor: NotNegative = 1.0,
    original: bool = False,
) -> WeightPatch:
    """Optimise a target value for each edit and write it at its keys.

    Args:
        session: The edits and the engine.
        search: How values are optimised.
        layer: Layer to edit; by default at 0.17 of the depth (gated or rotary) or 0.35 (others).
        clamp: Bound on |delta| / |v0|; by default 8, published 4.
        preserve_factor: Factor on the mean KL(before || after) of what the model states of the
            subject.
        original: The published form: Adam, 21 contexts, nothing preserved, key and output of the
            bare prompt in the update, no ridge, and sums in the published order.
    """
    layer = session.one_layer(layer)
    session.prepare([layer], search, ROME_CONTEXTS if original else BEGUN)
    settings = session.search_settings(
        search,
        published=original,
        clamp=clamp,
        preserve_factor=preserve_factor,
        published_order=original,
    )
    values = session.optimise(layer, settings)
    ridge = 0.0 if original else session.direction_ridge
    inverse = session.inverse(layer, ridge)

    def solve(keys: Tensor) -> Tensor:
        return inverse.unwhiten(inverse.whiten(keys.T)).T.cpu()

    ids = [edit.id for edit in session.edits]
    change = published_updates(values, solve, ids) if original else updates(values, solve, ids)
    return session.patch(
        {layer: change}, layer=layer, clamp=settings.clamp, statistics={"ridge": ridge}
    )


def updates(values: Sequence[Value], solve: Solve, ids: Sequence[str]) -> LowRank:
    """Return the changes delta u^T with u . k = 1, or nearly, at the key of each context.

    Args:
        values: What was optimised for E edits.
        solve: The key covariance.
        ids: Those of the edits.
    """
    rows = [respond(value.keys.cpu(), solve(value.keys.cpu())) for value in values]
    columns = [value.delta.cpu() for value in values]
    return _low_rank(rows, columns, ids)


def published_updates(values: Sequence[Value], solve: Solve, ids: Sequence[str]) -> LowRank:
    """Return the published changes: u from the mean key, the rest from the bare prompt's."""
    keys = torch.stack([value.keys.mean(0) for value in values])  # (E, intermediate_size)
    pairs = [
        rank_one(direction, value.keys[0].cpu(), value.outputs[0].cpu(), value.target.cpu())
        for value, direction in zip(values, directions(solve(keys.cpu())), strict=True)
    ]
    return _low_rank([u for u, _ in pairs], [v for _, v in pairs], ids)


def _low_rank(rows: Sequence[Tensor], columns: Sequence[Tensor], ids: Sequence[str]) -> LowRank:
    down, up = torch.stack(list(rows)), torch.stack(list(columns), dim=1)  # (E, in), (out, E)
    if not bool(down.isfinite().all() and up.float().isfinite().all()):
        raise NumericalFailure(
            "the change of the weights is not finite: load the model in float32, or choose another "
            "layer"
        )
    return LowRank(down.float(), up.float(), tuple(ids))
