"""PMET: optimise the outputs of attention and MLP together, and write the MLP's part alone.

Li et al. 2024, "PMET: Precise Model Editing in a Transformer", arXiv 2308.08742.

    minimise over delta_a, delta_m:   mean_j -mu log p(o | x_j; a += delta_a, m += delta_m) + KL
    Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,    R_l = (v - W k) / sqrt(layers left)

    paper      here                          what
    delta_a    site "attention+mlp"          added to the attention's output, then dropped
    v          targets                       target values of the last layer's MLP output
    W k        `LayerwiseReplay.read`        that output with the lower layers edited
    k_i        keys                          keys at the subject's last token, over contexts
    C_l        session.inverse               covariance of all keys
    lambda     cov_weight                    tokens of text that each edit is weighed against
    mu         EASED                         1, and 0.1 once the target is the most probable

Both parts add to one residual stream, so MEMIT's target for it asks the MLP to do what attention
would do as well; here only the MLP's own part is written. Residuals are divided by the root of the
number of layers left, so that lower layers carry more.

Deviations: one bound and one penalty serve for both deltas; all values are optimised on the
unedited model and edits are sorted by id; lambda is in proportion to the key's length as in MEMIT
(published: 6,000 for GPT-J, 0.37 of its intermediate size).
"""

from __future__ import annotations

from emend._settings import NotNegative
from emend.editing import NORM_PENALTY, Search, Session
from emend.methods._method import method
from emend.patches import WeightPatch

EASED = 0.1
"""Factor on the target's loss once each of its tokens is the most probable."""
STOP_KL = 0.01
"""The optimisation ends where they are, and the KL term is at most this."""
PUBLISHED = {
    "learning_rate": 0.2,
    "norm_penalty": NORM_PENALTY,
    "kl_factor": 1.0,
    "easing": EASED,
    "stop_kl": STOP_KL,
}


@method(
    title="PMET: MEMIT with the attention's share of a value optimised apart, and left out",
    paper="Li et al. 2024, arXiv 2308.08742",
    when="many facts at once; to be compared with memit where attention does much of the work",
    avoid="the best result on a small model: no measurement here shows a gain over memit",
    continues="joint",
    order_invariant=True,
    by_subject=True,
    aims=True,
)
def pmet(
    session: Session,
    search: Search = Search(steps=30),
    *,
    layers: tuple[int, ...] | None = None,
    cov_weight: NotNegative | None = None,
) -> WeightPatch:
    """Optimise both parts of each value, and write the MLP's over the layers.

    Args:
        session: The edits and the engine.
        search: How values are optimised.
        layers: Layers to edit; by default those of `memit`.
        cov_weight: Lambda; by default 0.1 times the intermediate size (published: 6000, GPT-J).
    """
    layers = session.several_layers(layers)
    session.prepare(layers, search)
    site = "attention+mlp"
    settings = session.search_settings(
        search, site=site, published=True, share_subject=True, **PUBLISHED
    )
    targets = session.target_values(layers[-1], settings, site)  # (E, hidden_size)
    write = session.ridge_writer(cov_weight)
    changes = session.distribute(
        targets, layers, write, "mlp", share=lambda remaining: remaining**-0.5
    )
    return session.patch(changes, layers=layers)
