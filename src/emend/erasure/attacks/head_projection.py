"""Head projection: the most probable tokens of several layers, read through norm and head.

Patil et al. 2024, arXiv 2309.17410, section 4.1. With p_l the distribution of the logit lens at
the prompt's last token after layer l:

    candidates = union over l in L of the k most probable tokens of p_l,    B = k |L|

Published: k = 4, five layers chosen on validation facts of one model. Here: as many layers as in
`LAYERS`, spread over the upper half of the model (or given ones), and k = B // |L|.
"""

from __future__ import annotations

import torch

from emend.erasure.attacks._attack import Attack, Found, Given
from emend.erasure.attacks._layers import spread_layers
from emend.erasure.attacks._states import Tally, positions, view_of

LAYERS = 5


def run(given: Given) -> Found:
    """Name the k most probable tokens of each chosen layer."""
    layers = spread_layers(view_of(given.model), min(LAYERS, given.budget), given.layers)
    layers = layers[-given.budget :]
    top = given.budget // len(layers)
    tally = Tally(given)
    for at in positions(given, layers):
        named = [at.logits(layer).topk(min(top, at.view.vocabulary)).indices for layer in layers]
        tally.add(at, torch.cat([each.cpu() for each in named], dim=1))  # (N, k |L|)
    how = f"top {top} of each of the layers {', '.join(map(str, layers))}"
    return Found(tally.attempts(), how)


head_projection = Attack(
    name="head_projection",
    title="the most probable tokens of several layers, through the head",
    paper="Patil et al. 2024, arXiv 2309.17410",
    run=run,
    needs_states=True,
)
