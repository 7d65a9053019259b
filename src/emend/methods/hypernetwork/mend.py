"""MEND: a small network that turns the gradient of an edit into a better one.

Mitchell et al. 2022, arXiv 2110.11309.

    grad_W L = sum_t delta_t u_t^T            u_t: the layer's input, delta_t: the gradient
                                              at its output (`editing.gradients`)
    (u~_t, delta~_t) = g(u_t, delta_t)        eq. 3, after normalising by running mean and
                                              deviation; one g for all matrices of one shape
    Delta W = -alpha sum_t delta~_t u~_t^T    eq. 4, alpha learnt for each matrix
    L = c_edit L_e(rewording; W + Delta) + c_loc KL(base || edited) on other texts      eq. 5

    paper                   here
    g; U, V, s, o           `_editing_network`: EditingNetwork; ResidualLayer
    alpha                   step (times a calibrated size) of each matrix
    c_edit / c_loc          `edit_weight` of the training (`emend train`)
    x_e', x_loc             rephrase probes and locality probes of the training's edits

Deviations: the last layer of g is linear (eq. 3 takes the maximum with zero there too, and can
then only ever add to a number); the loss counts the edit's own words next to a rewording, with
c_edit 1 and not 0.1; the first alpha is not 1e-4 but such that a first change adds a tenth of the
matrix's output; the learning rate is set for small models; the edits of a batch are trained
independently, each on a model of its own that exists only as hooks. Several edits are edited by
the sum of their changes, each computed on the base model: any order gives the same, and each can
be taken out alone. An untrained network refuses to edit.
"""

from __future__ import annotations

from typing import ClassVar

from emend.editing.session import Session
from emend.methods._method import method
from emend.methods.hypernetwork._apply import ApplySettings, edit_by_network
from emend.methods.hypernetwork._editing_network import SteppedNetwork
from emend.methods.hypernetwork._network import Factors, Reading
from emend.patches import WeightPatch


class Network(SteppedNetwork):
    """Mitchell et al. 2022, equations 3 and 4."""

    first: ClassVar[float] = 0.1

    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Return Delta W = -alpha sum_t delta~_t u~_t^T."""
        found: dict[str, Factors] = {}
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            inputs, deltas = self.editing(name, gradients)
            step = self.step[number] * self.calibration[number]
            found[name] = Factors(inputs, -step * deltas, gradients.rows)
        return found


@method(
    title="MEND: a trained network turns an edit's gradient into a change of weights",
    paper="Mitchell et al. 2022, arXiv 2110.11309",
    when="an edit in milliseconds, once a network is trained for the model; few edits at a time",
    avoid="a model without a trained network; many edits at a time, whose changes add up",
    continues="additive",
    order_invariant=True,
)
def mend(session: Session, config: ApplySettings) -> WeightPatch:
    """Edit by a trained network (`emend train --method mend`)."""
    return edit_by_network(session, config)
