"""Probability delta: the tokens whose probability rises or falls most from layer to layer.

Patil et al. 2024, arXiv 2309.17410, section 4.1. With p_l the distribution of the logit lens at
the prompt's last token after layer l, for consecutive layers l, l' of L:

    candidates = union of the k largest and the k smallest entries of p_l' - p_l,
    B = 2 k (|L| - 1)

An answer that late layers suppress is among the smallest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emend.erasure.attacks._attack import Attack, Found, Given
from emend.erasure.attacks._layers import spread_layers
from emend.erasure.attacks._states import Positions, Tally, positions, view_of
from emend.errors import InvalidInput

DIFFERENCES = 5


def run(given: Given) -> Found:
    """Name the k tokens that rise and the k that fall most between chosen layers."""
    most = given.budget // 2
    layers = spread_layers(view_of(given.model), 1 + min(DIFFERENCES, most), given.layers)
    layers = layers[-(1 + most) :]
    if len(layers) < 2:
        raise InvalidInput(f"layers are {layers}, expected two at least to take differences of")
    each = given.budget // (2 * (len(layers) - 1))
    tally = Tally(given)
    for at in positions(given, layers):
        tally.add(at, differences(at, layers, each))
    how = f"top and bottom {each} of the differences of layers {', '.join(map(str, layers))}"
    return Found(tally.attempts(), how)


def differences(at: Positions, layers: list[int], each: int) -> Tensor:
    """Return the tokens that rise and fall most, (N, 2 each (layers - 1)) int64 on the CPU."""
    named: list[Tensor] = []
    each = min(each, at.view.vocabulary)
    before = at.logits(layers[0]).softmax(-1)  # (N, vocabulary)
    for layer in layers[1:]:
        after = at.logits(layer).softmax(-1)
        change = after - before.to(after.device)
        named += [change.topk(each, largest=largest).indices.cpu() for largest in (True, False)]
        before = after
    return torch.cat(named, dim=1)


probability_delta = Attack(
    name="probability_delta",
    title="the tokens that rise or fall most from layer to layer",
    paper="Patil et al. 2024, arXiv 2309.17410",
    run=run,
    needs_states=True,
    least_budget=2,
)
