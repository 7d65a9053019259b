"""AlphaEdit: write many facts along directions that other keys do not use.

Fang et al. 2025, "AlphaEdit: Null-Space Constrained Knowledge Editing", arXiv 2410.02355.

    Delta_l = R_l K_l^T P_l (K_l K_l^T P_l + lambda_2 I)^-1                          (eq. 12)
            = R_l (K_l^T P_l K_l + lambda_2 I)^-1 K_l^T P_l

    paper      here                             what
    z_i        targets.wanted                   what the last edited block should put out
    k_i        keys of `spread`                 key at the subject's last token, over contexts
    R_l        residuals of `spread`            (z - h) / (number of layers left)
    P_l        `editing.nullspace`             projection on the null space of C
    lambda_2   weight                           keeps the change small

The search is the published one, and an edit is written at one key: a null space has few directions,
a hundred edits in six contexts would be more pairs than it holds, and values that are just enough
are not reached in it (docs/defaults.md).

Where this deviates from the authors' code: the null space is by default that of the smallest
eigenvalues that hold a part of C's trace, since a threshold depends on the model's scale
(``threshold`` gives the published form, 2e-2); lambda_2 is by default in proportion to the mean
square length of a projected key. Both defaults were found on the lab's models. Instead of adding
up the K K^T of earlier calls, all edits of the set are solved for together from the base weights,
with values sought on the unedited model and edits sorted by id (canonical build): for a fixed P
both are the same least squares. With ``fit_steps`` all layers are fitted together instead, inside
the same null spaces (`editing.fitting`), which is ours.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from emend._settings import NotNegative, Positive, Range
from emend.editing.building import SpreadConfig, build
from emend.editing.joint import solve_jointly
from emend.editing.nullspace import NullSpace, Spectrum, null_space
from emend.editing.priors import Prior
from emend.editing.spread import Solve
from emend.edits import Edit
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import Dense, LowRank, WeightPatch


@dataclass(frozen=True)
class AlphaeditConfig(SpreadConfig):
    """Settings of AlphaEdit. Those that are None are taken from the model's shape."""

    weight_decay: NotNegative | None = 0.5
    """Factor on |delta| / |z0|^2; None takes 1e-3 (gated or rotary) or 0.5."""
    quantile: Annotated[float, Range(above=0, below=1)] = 0.02
    """The null space holds this part of the trace of the second moment."""
    threshold: Positive | None = None
    """Takes all eigenvalues below this as the null space instead (published: 2e-2)."""
    weight: NotNegative | None = None
    """Lambda_2; by default 0.1 times the mean square length of a projected key (published: 10)."""


WEIGHT = 0.1
"""Lambda_2 by default, in mean square lengths of a projected key."""


@method(
    title="AlphaEdit: many facts at once, in the null space of what is to be preserved",
    paper="Fang et al. 2025, arXiv 2410.02355",
    when="many facts where what else the model knows must not move",
    order_free=True,
    by_subject=True,
)
def alphaedit(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: AlphaeditConfig,
    previous: WeightPatch | None = None,
) -> WeightPatch:
    """Seek a value for each edit and write all of them layer by layer, inside the null space."""
    ranks: dict[str, int] = {}

    def freed(prior: Prior, layer: int) -> tuple[NullSpace, Spectrum]:
        spectrum = prior.spectrum(layer)
        free = null_space(spectrum, quantile=config.quantile, threshold=config.threshold)
        ranks[str(layer)] = free.rank
        return free, spectrum

    def whiten(prior: Prior, layer: int) -> Tensor:
        free, spectrum = freed(prior, layer)
        return spectrum.scaled(free.rank)

    def solver(_view: ModelView, prior: Prior) -> Solve:
        # Before the search: a quantile that frees nothing is refused, and the memory that finding
        # eigenvectors takes is not on top of what the search leaves.
        for layer in prior.kept:
            freed(prior, layer)

        def solve(layer: int, keys: Tensor, residuals: Tensor) -> LowRank | Dense:
            free, _ = freed(prior, layer)
            weight = WEIGHT * free.energy if config.weight is None else config.weight
            return solve_jointly(free.projector, keys, residuals, weight)

        return solve

    patch = build(
        *(model, tokenizer, edits, config, previous),
        method="alphaedit",
        solver=solver,
        published=True,
        all_keys=False,
        whiten=whiten,
    )
    return dataclasses.replace(patch, statistics={**patch.statistics, "null_space": ranks})
