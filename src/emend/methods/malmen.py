"""MALMEN: many edits at once by a trained network, their changes put together by ridge regression.

Tan et al. 2024, arXiv 2311.04661.

    D_t = -eta (u_t . u~_t) delta~_t                    the change of output wanted at token t, with
                                                        u~, delta~ of MEND's network
    Delta W^T = (U^T U + e^lambda I)^-1 U^T D           the least change that gives all of them

    paper                       here
    hyper-network S_t = phi(u, delta)   hypernetworks/_editing.py: EditingNetwork
    eta, lambda of a layer      step (times a calibrated size) and ridge of each matrix
    U, D                        inputs and values over all tokens of all edits

Where this deviates: solved in float64 on the smaller side, so that the factors are the tokens;
the gradient reaches the network through the solution in one pass, and not in two with what stands
between them kept on disk (the same gradient; that the model is large is no concern of the lab).
The change is a function of the set of edits: any order gives the same, but no edit can be taken
out alone. An untrained network refuses to edit.
"""

from __future__ import annotations

from typing import Any

from emend.edits import Edit
from emend.hypernetworks.apply import ApplySettings, edit_by_network
from emend.methods._method import method
from emend.patches import WeightPatch


@method(
    title="MALMEN: a trained network edits many facts at once, joined by ridge regression",
    paper="Tan et al. 2024, arXiv 2311.04661",
    when="a batch of edits in milliseconds, once a network is trained for the model",
    order_free=True,
)
def malmen(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: ApplySettings,
    previous: WeightPatch | None = None,
) -> WeightPatch:
    """Edit by a trained network (`emend train --method malmen`).

    Taking ``previous`` says that the change is built from all edits together; nothing in it is
    needed but the edits.
    """
    return edit_by_network("malmen", model, tokenizer, edits, config)
