"""AlphaEdit: write many facts along directions that other keys do not use.

Fang et al. 2025, "AlphaEdit: Null-Space Constrained Knowledge Editing", arXiv 2410.02355.

    Delta_l = R_l K_l^T P_l (K_l K_l^T P_l + lambda_2 I)^-1                          (eq. 12)
            = R_l (K_l^T P_l K_l + lambda_2 I)^-1 K_l^T P_l

    paper      here                     what
    z_i        targets                  target values of the last edited layer's output
    k_i        keys                     keys at the subject's last token, over contexts
    R_l        residuals                (z - h) / (number of layers left)
    P_l        `editing.null_space`     projection on the null space of C
    lambda_2   norm_weight              keeps the change small

Values are optimised as published, and an edit is written at one key: a null space has few
directions, a hundred edits in six contexts would be more pairs than it holds, and values that are
just enough are not reached in it (docs/defaults.md).

Deviations: the null space is that of the smallest eigenvalues that hold a part of C's trace, since
the published threshold (2e-2) depends on the model's scale; lambda_2 is by default in proportion to
the mean square length of a projected key. Both defaults were found on the lab's models. Instead of
adding up the K K^T of earlier calls, all edits of the set are written together from the base
weights, with values optimised on the unedited model and edits sorted by id: for a fixed P both are
the same least squares.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from emend._settings import NotNegative, Range
from emend.editing import NORM_PENALTY, Search, Session, null_space, ridge_write
from emend.editing.covariance import NullSpace
from emend.editing.ridge import Held
from emend.methods._method import method
from emend.patches import Factor, WeightPatch

WEIGHT = 0.1
"""Lambda_2 by default, in mean square lengths of a projected key."""


@method(
    title="AlphaEdit: many facts at once, in the null space of what is to be preserved",
    paper="Fang et al. 2025, arXiv 2410.02355",
    when="many facts where what else the model knows must not move",
    avoid="few facts (rome keeps more), and small models, whose null space holds few keys",
    continues="joint",
    order_invariant=True,
    by_subject=True,
    aims=True,
)
def alphaedit(
    session: Session,
    search: Search = Search(),
    *,
    layers: tuple[int, ...] | None = None,
    quantile: Annotated[float, Range(above=0, below=1)] = 0.02,
    norm_weight: NotNegative | None = None,
) -> WeightPatch:
    """Optimise a target value for each edit and write all of them inside the null space.

    Args:
        session: The edits and the engine.
        search: How values are optimised.
        layers: Layers to edit; by default those of `memit`.
        quantile: The null space holds this part of the trace of the key covariance.
        norm_weight: Lambda_2; by default 0.1 times the mean square length of a projected key
            (published: 10).
    """
    layers = session.several_layers(layers)
    session.prepare(layers, search)
    ranks: dict[str, int] = {}

    def freed(layer: int) -> NullSpace:
        free = null_space(session.covariance.spectrum(layer), quantile=quantile)
        ranks[str(layer)] = free.rank
        return free

    # Before values are optimised: a quantile that frees nothing is refused, and the memory that
    # finding eigenvectors takes does not add to what the optimisation leaves.
    for layer in session.covariance.on_disk:
        freed(layer)
    site = session.site(layers[-1])
    settings = session.search_settings(
        search, site, published=True, share_subject=True, norm_penalty=NORM_PENALTY
    )
    targets = session.target_values(layers[-1], settings, site)  # (E, hidden_size)

    def write(layer: int, keys: Tensor, residuals: Tensor, held: Held | None) -> Factor:
        free = freed(layer)
        weight = WEIGHT * free.energy if norm_weight is None else norm_weight
        return ridge_write(free.projector, keys, residuals, weight, held=held)

    changes = session.distribute(targets, layers, write, site)
    return session.patch(changes, layers=layers, statistics={"null_space": ranks})
