"""EMMET: ROME for a batch. Every key gets its value (nearly) exactly, and all others move least.

Gupta et al. 2024, "A Unified Framework for Model Editing", arXiv 2403.14236, equation 8.

    Delta = R (K^T C^-1 K + lambda I)^-1 K^T C^-1,    R = V* - W K

    paper    here              what
    k_i      sites.keys        keys at the subject's last token, one for each context
    v_i      targets           target values of the MLP's output there
    W k_i    sites.outputs     its output in the unedited model
    C_0      session.inverse   covariance of all keys
    lambda   cov_weight        0 is equality; see below

Deviations: an edit is written at the keys of all contexts, with one residual (``original`` takes
their mean, which with one edit and lambda = 0 is R-ROME); C has a ridge; the published lambda_0, a
factor on C, only changes the balance with lambda, and is left out; lambda counts for one edit too,
so that the patch is one function of the set of edits. K^T C^-1 K grows with the key's length, so
that the published lambda = 0.1 is next to equality at any size; where contexts' keys are nearly
alike, equality at each would cost a large change, hence 0.03 times the intermediate size.
"""

from __future__ import annotations

from emend._settings import NotNegative
from emend.editing import Search, Session, ridge_write
from emend.editing.ridge import SLACK
from emend.methods._method import method
from emend.patches import WeightPatch

PUBLISHED_WEIGHT = 0.1


@method(
    title="EMMET: a batch of facts in one layer, each written (nearly) exactly",
    paper="Gupta et al. 2024, arXiv 2403.14236",
    when="up to some hundred facts that must all be there; the same patch in any order",
    avoid="more facts than some hundred, which one layer does not hold: take memit",
    continues="joint",
    order_invariant=True,
    by_subject=True,
    aims=True,
)
def emmet(
    session: Session,
    search: Search = Search(),
    *,
    layer: int | None = None,
    cov_weight: NotNegative | None = None,
    preserve_factor: NotNegative = 1.0,
    original: bool = False,
) -> WeightPatch:
    """Optimise a target value for each edit and write all of them in one layer.

    Args:
        session: The edits and the engine.
        search: How values are optimised.
        layer: Layer to edit; by default at 0.17 of the depth (gated or rotary) or 0.35 (others).
        cov_weight: Lambda; by default 0.03 times the intermediate size, published 0.1. 0 writes
            every value exactly, and fails where two keys are equal.
        preserve_factor: Factor on the mean KL(before || after) of what the model states of the
            subject.
        original: The published form: Adam, nothing preserved, written at the mean key.
    """
    layer = session.one_layer(layer)
    session.prepare([layer], search)
    if cov_weight is None:
        cov_weight = PUBLISHED_WEIGHT if original else SLACK * session.view.intermediate_size(layer)
    settings = session.search_settings(
        search, published=original, share_subject=True, preserve_factor=preserve_factor
    )
    targets = session.target_values(layer, settings)  # (E, hidden_size)
    sites = session.keys_and_outputs(layer)  # (E, C, ...)
    keys = sites.keys.double()
    if original:
        keys, outputs = keys.mean(1), sites.outputs.double().mean(1)
    else:
        outputs = sites.outputs.double()[:, 0]
    ridge = session.direction_ridge
    inverse = session.inverse(layer, ridge)
    change = ridge_write(inverse, keys, targets.double() - outputs, cov_weight)
    return session.patch(
        {layer: change}, statistics={"ridge": ridge}, layer=layer, cov_weight=cov_weight
    )
