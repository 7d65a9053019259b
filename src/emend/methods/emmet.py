"""EMMET: ROME for a batch. Every key gets its value exactly, and all others move the least.

Gupta et al. 2024, "A Unified Framework for Model Editing", arXiv 2403.14236, equation 8.

    Delta = R (K^T C^-1 K + lambda I)^-1 K^T C^-1,    R = V* - W K

    paper    here                             what
    k_i      sites.keys                       keys at the subject's last token, one a context
    v_i      wanted                           what the down-projection should put out
    W k_i    sites.outputs                    what it puts out now
    C_0      `editing.priors`                second moment of all keys
    lambda   weight                           0 would be equality; see below

Where this deviates from the authors' code: an edit is written at the keys of all contexts, each of
which gets the same change (``all_keys``; False takes their mean, and with one edit and lambda = 0
is R-ROME), with ROME's search and layer; C has a ridge; the published lambda_0, a factor on C, only
changes the balance with lambda, and is left out; lambda counts for one edit too, so that the patch
is one function of the set of edits. K^T C^-1 K grows with the key's length (about the inner
width), so that the published lambda = 0.1 is next to equality at any size; where contexts' keys are
nearly alike, equality at each would cost a large change, hence 0.03 times that width.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from emend._settings import NotNegative
from emend.editing import subject_keys
from emend.editing.assemble import (
    SearchConfig,
    assemble,
    filled_search,
    search_settings,
    single_layer,
)
from emend.editing.contexts import STARTS, begun_templates
from emend.editing.joint import solve_jointly
from emend.editing.memory import check_edit
from emend.editing.priors import metric_of, prior_for, ridge_for
from emend.editing.solved import sought_values
from emend.editing.solvers import LOOSE
from emend.editing.sources import texts_for
from emend.edits import Edit
from emend.methods._method import method
from emend.models import ModelView
from emend.patches import WeightPatch

PUBLISHED_WEIGHT = 0.1
"""Lambda of the authors' code."""


@dataclass(frozen=True)
class EmmetConfig(SearchConfig):
    """Settings of EMMET. Those that are None are taken from the model's shape."""

    layer: int | None = None
    """Block to edit; by default at 0.17 of the depth (gated or rotary) or 0.35 (others)."""
    share_subject: bool = True
    """Seek one change for all edits of a subject: written at one key, they would otherwise be
    averaged. Off for the published form."""
    weight: NotNegative | None = None
    """Lambda; by default 0.03 times the inner width where all keys are written at, else 0.1 as
    published. 0 writes every value exactly, and fails where two keys are the same."""
    ridge: NotNegative | None = None
    """Ridge on the second moment, in parts of its mean diagonal; by default 1e-4, and 1 over
    samples of the model's own."""


@method(
    title="EMMET: a batch of facts in one layer, each written (nearly) exactly",
    paper="Gupta et al. 2024, arXiv 2403.14236",
    when="up to some hundred facts that must all be there; the same patch in any order",
    order_free=True,
    by_subject=True,
)
def emmet(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: EmmetConfig,
    previous: WeightPatch | None = None,
) -> WeightPatch:
    """Seek a value for each edit and write all of them in one layer."""
    view = ModelView(model)
    layer = single_layer(view, config.layer)
    started = time.perf_counter()
    templates = config.templates or (previous.templates if previous else ())
    count, source = len(templates) or 1 + len(STARTS), texts_for(view, tokenizer, config.texts)
    check_edit(view, tokenizer, edits, count, [layer])
    templates = templates or begun_templates(model, tokenizer, seed=config.seed)
    prior = prior_for(view, tokenizer, [layer], source, cache=config.cache)
    prepared = time.perf_counter()
    settings = search_settings(view, config)
    all_keys = config.all_keys is not False
    weight = config.weight
    if weight is None:
        weight = LOOSE * view.intermediate_size(layer) if all_keys else PUBLISHED_WEIGHT
    ordered = sorted(edits, key=lambda edit: edit.id)  # so that any order sums alike
    wanted, state = sought_values(
        view,
        tokenizer,
        ordered,
        templates,
        layer,
        settings,
        known=previous.state if previous else None,
    )
    searched = time.perf_counter()
    sites = subject_keys(view, tokenizer, ordered, templates, [layer])[layer]
    keys = sites.keys.double()  # (E, C, inner)
    keys = keys if all_keys else keys.mean(1)
    outputs = sites.outputs.double()  # (E, C, width)
    residuals = wanted.double() - (outputs[:, 0] if all_keys else outputs.mean(1))
    ridge = ridge_for(source) if config.ridge is None else config.ridge
    metric = metric_of(view, prior, layer, ridge)
    return assemble(
        view,
        edits,
        {layer: solve_jointly(metric, keys, residuals, weight)},
        method="emmet",
        config=dataclasses.replace(
            filled_search(config, settings, all_keys), layer=layer, ridge=ridge, weight=weight
        ),
        templates=templates,
        statistics=prior.note,
        seconds={
            "precompute": prepared - started,
            "search": searched - prepared,
            "solve": time.perf_counter() - searched,
        },
        state=state,
    )
