"""PMET: seek what attention and MLP should put out together, and write the MLP's part alone.

Li et al. 2024, "PMET: Precise Model Editing in a Transformer", arXiv 2308.08742.

    minimise over delta_a, delta_m:   mean_j -mu log p(o | x_j; a += delta_a, m += delta_m) + KL
    Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,    R_l = (v - W k) / sqrt(layers left)

    paper      here                             what
    delta_a    `values`, site "attention+mlp"   sought for the attention's output, then dropped
    v          targets.wanted                   what the last layer's down-projection should put out
    W k        stream's `Reading.outputs`       what it puts out on the layers built so far
    k_i        keys of `spread`                 key at the subject's last token, over contexts
    C_l        `editing.priors`                second moment of all keys
    lambda     weight                           tokens of text that each edit is weighed against
    mu         EASED                            1, and 0.1 once the target is the likeliest

Both parts add to one stream, so MEMIT's target for the stream asks the MLP to do what attention
would do as well; here only the MLP's own part is written. Residuals are divided by the root of the
number of layers left, so that lower layers carry more.

Where this deviates from the authors' code: one bound and one decay serve for both deltas; all
values are sought on the unedited model and edits are sorted by id (canonical build); lambda is in
proportion to the key's length as in MEMIT (published: 6,000 for GPT-J, 0.37 of its inner width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emend._settings import Count, NotNegative, Positive
from emend.editing.building import SpreadConfig, build, ridge_solver
from emend.editing.solvers import RIDGE
from emend.edits import Edit
from emend.methods._method import method
from emend.patches import WeightPatch

EASED = 0.1
"""Factor on the target's loss once each of its tokens is the likeliest."""
STOP_KL = 0.01
"""The search ends where they are, and the KL term is at most this."""


@dataclass(frozen=True)
class PmetConfig(SpreadConfig):
    """Settings of PMET. Those that are None are taken from the model's shape."""

    steps: Count | None = 30
    """Forward passes of the search."""
    learning_rate: Positive = 0.2
    """Step size of Adam."""
    weight_decay: NotNegative | None = 0.5
    """Factor on |delta| / |v0|^2 of each part; None takes 1e-3 (gated or rotary) or 0.5."""
    kl_factor: NotNegative = 1.0
    """Factor on the KL divergence that keeps what the subject is."""
    weight: NotNegative | None = None
    """Lambda; by default 0.1 times the inner width (published: 6000 GPT-J)."""
    ridge: NotNegative = RIDGE
    """Ridge on the second moment, in parts of its mean diagonal."""


@method(
    title="PMET: MEMIT with the attention's share of a value sought apart, and left out",
    paper="Li et al. 2024, arXiv 2308.08742",
    when="many facts at once; to be compared with memit where attention does much of the work",
    order_free=True,
    by_subject=True,
)
def pmet(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: PmetConfig,
    previous: WeightPatch | None = None,
) -> WeightPatch:
    """Seek both parts of each value, and write the MLP's over the layers."""
    return build(
        model,
        tokenizer,
        edits,
        config,
        previous,
        method="pmet",
        solver=ridge_solver(config.weight, config.ridge),
        site="attention+mlp",
        published=True,
        all_keys=False,
        share=lambda remaining: remaining**-0.5,
        search={"easing": EASED, "stop_kl": STOP_KL},
    )
