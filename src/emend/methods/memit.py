"""MEMIT: write many facts at once, spread over several layers, by least squares.

Meng et al. 2022, "Mass-Editing Memory in a Transformer", arXiv 2210.07229.

    Delta_l = R_l K_l^T (lambda C_l + K_l K_l^T)^-1,    R_l = (z - h) / (L - l + 1)   (eq. 14, 20)

    paper     here                               what
    z_i       targets.wanted                     what the last edited block should put out
    h_i       stream's `Reading.hidden`          what it puts out on the layers built so far
    k_i       keys of `spread`                   key at the subject's last token, over contexts
    C_l       `editing.priors`                  second moment of all keys
    lambda    weight                             tokens of text that each edit is weighed against

Where this deviates from the authors' code: the search is ROME's of `methods.rome`, which keeps the
model's statements of the subject, and an edit is written at the keys of all contexts (both by
settings, docs/methods.md); all values are sought on the unedited model and all
edits are sorted by id, so that the patch is a function of the set of edits (canonical build);
C has a ridge, and systems are solved in float64 on their smaller side; lambda is by default in
proportion to the key's length, since k^T C^-1 k of a usual key is that length: 0.1 times it, found
on the lab's models (the published 15,000 is 0.9 times the inner width of GPT-J, and 20,000 is 3.1
times that of GPT-2 XL). With ``fit_steps`` all layers are fitted together instead
(`editing.fitting`), which is ours: what lower layers move elsewhere then does not add up. Where a
model puts a norm between MLP and stream (Gemma 2, OLMo 2), one layer is edited, at that MLP's
output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emend._settings import NotNegative
from emend.editing.building import SpreadConfig, build, ridge_solver
from emend.editing.solvers import RIDGE
from emend.edits import Edit
from emend.methods._method import method
from emend.patches import WeightPatch


@dataclass(frozen=True)
class MemitConfig(SpreadConfig):
    """Settings of MEMIT. Those that are None are taken from the model's shape."""

    weight_decay: NotNegative | None = 0.5
    """Factor on |delta| / |z0|^2; None takes 1e-3 (gated or rotary) or 0.5."""
    weight: NotNegative | None = None
    """Lambda; by default 0.1 times the inner width (published: 15000 GPT-J, 20000 GPT-2 XL)."""
    ridge: NotNegative = RIDGE
    """Ridge on the second moment, in parts of its mean diagonal."""


@method(
    title="MEMIT: many facts at once, spread over several layers by least squares",
    paper="Meng et al. 2022, arXiv 2210.07229",
    when="from ten to some thousand facts at once; the same patch in whatever order they come",
    order_free=True,
    by_subject=True,
)
def memit(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: MemitConfig,
    previous: WeightPatch | None = None,
) -> WeightPatch:
    """Seek a value for each edit and write all of them layer by layer."""
    solver = ridge_solver(config.weight, config.ridge)
    return build(model, tokenizer, edits, config, previous, method="memit", solver=solver)
