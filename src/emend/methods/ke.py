"""KE: a network reads the edit as text and gates, for each matrix, the gradient of the edit.

De Cao et al. 2021, arXiv 2104.08164.

    summary = BiLSTM("old >> new || input")                 over the base model's own embeddings
    alpha, beta, gamma, zeta, eta = conditioner(summary)    of each matrix
    Delta W = sigma(eta) (grad_W L * (softmax(alpha) beta^T) + softmax(gamma) zeta^T)
    minimise   L_edit on the edit and its rewordings   subject to   KL(base || edited) <= margin
    by gradient ascent on a Lagrange multiplier; the margin shrinks where edits succeed

Since grad_W L = sum_t delta_t u_t^T, the masked gradient is sum_t (softmax(alpha) * delta_t)
(beta * u_t)^T: the change has the rank of the edit's tokens and one more, and is never built.

Where this deviates: matrices are the MLP's of the last blocks; softmax(alpha) is multiplied by its
length, each edit's gradient is brought to one length and each matrix has a fixed step calibrated
on the first batch, without which a small model needs many thousands of steps; beta begins at -1,
which is plain descent; the margin is 0.05 and shrinks to 0.005 (the paper: 1e-3 and 1e-5); no
label smoothing. Several edits are edited by the sum of their changes,
each on the base model. An untrained network refuses to edit.
"""

from __future__ import annotations

from typing import Any

from emend.edits import Edit
from emend.hypernetworks.apply import ApplySettings, edit_by_network
from emend.methods._method import method
from emend.patches import WeightPatch


@method(
    title="KE: a trained network reads the edit and gates its gradient",
    paper="De Cao et al. 2021, arXiv 2104.08164",
    when="to compare with MEND, which serves better",
    order_free=True,
)
def ke(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: ApplySettings) -> WeightPatch:
    """Edit by a trained network (`emend train --method ke`)."""
    return edit_by_network("ke", model, tokenizer, edits, config)
