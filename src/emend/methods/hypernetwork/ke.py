"""KE: a network reads the edit as text and gates, for each matrix, the gradient of the edit.

De Cao et al. 2021, arXiv 2104.08164.

    summary = BiLSTM("old >> new || input")                 over the base model's own embeddings
    alpha, beta, gamma, zeta, eta = conditioner(summary)    of each matrix
    Delta W = sigma(eta) (grad_W L * (softmax(alpha) beta^T) + softmax(gamma) zeta^T)
    minimise   L_edit on the edit and its rewordings   subject to   KL(base || edited) <= margin
    by gradient ascent on a Lagrange multiplier; the margin shrinks where edits succeed

    paper                                here
    conditioner; alpha, ..., eta         `Conditioner`; mask, beta, gamma, zeta, gate
    Lagrange multiplier                  `Network.multiplier`
    margin                               `margin` of the training (`emend train`)

Since grad_W L = sum_t delta_t u_t^T, the masked gradient is sum_t (softmax(alpha) * delta_t)
(beta * u_t)^T: the change has the rank of the edit's tokens and one more, and is never built.

Deviations: matrices are the MLP's of the last blocks; softmax(alpha) is multiplied by its length,
each edit's gradient is scaled to one length and each matrix has a fixed step calibrated on the
first batch, without which a small model needs many thousands of steps; beta begins at -1, which
is plain descent; the margin is 0.05 and shrinks to a tenth (the paper: 1e-3 and 1e-5); no label
smoothing. Several edits are edited by the sum of their changes, each on the base model. An
untrained network refuses to edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emend._settings import Count, Positive
from emend.editing.session import Session
from emend.methods._method import method
from emend.methods.hypernetwork._apply import ApplySettings, edit_by_network
from emend.methods.hypernetwork._network import (
    Factors,
    Hypernetwork,
    NetworkSettings,
    Reading,
    Shapes,
)
from emend.patches import WeightPatch

LAST_MARGIN = 0.1
"""What the margin shrinks to, as a part of the first one."""
SHRINKING = 0.8
"""Factor on the margin after a validation at which more than `SUCCESS` of the edits succeed."""
SUCCESS = 0.9
MULTIPLIER_RATE = 0.1
"""Step size of the Lagrange multiplier, which ascends."""


@dataclass(frozen=True)
class KeSettings(NetworkSettings):
    """Settings of KE's network and of its training."""

    hidden: Count = 48
    """Size of the text's summary in each direction."""
    margin: Positive = 0.05
    """Largest mean divergence of the locality texts, at first (1e-3 in the paper)."""


class Conditioner(nn.Module):
    """From the text's summary to a mask and an offset of one matrix's gradient.

    Args:
        shape: (out, in) of the matrix.
        taken: Size of the summary.
        hidden: Size between.
    """

    def __init__(self, shape: tuple[int, int], taken: int, hidden: int) -> None:
        super().__init__()
        out, given = shape
        self.sizes = [out, given, out, given, 1]  # alpha, beta, gamma, zeta, eta
        self.into = nn.Linear(taken, hidden)
        self.out = nn.Linear(hidden, sum(self.sizes))
        with torch.no_grad():  # begins as a step down the gradient
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[out : out + given] = -1.0

    def forward(self, summary: Tensor) -> tuple[Tensor, ...]:
        """Return softmax(alpha), beta, softmax(gamma), zeta, sigmoid(eta), (E, ...) each."""
        parts = self.out(torch.tanh(self.into(summary))).split(self.sizes, dim=-1)
        alpha, beta, gamma, zeta, eta = parts
        # Times its length, a uniform softmax is 1.
        mask = alpha.softmax(-1) * alpha.shape[-1]
        return mask, beta, gamma.softmax(-1), zeta, eta.sigmoid()


class Network(Hypernetwork):
    """De Cao et al. 2021, section 4."""

    reads_text: ClassVar[bool] = True
    settings_type: ClassVar[type[NetworkSettings]] = KeSettings

    def __init__(self, shapes: Shapes, width: int, settings: KeSettings) -> None:
        super().__init__(shapes, width, settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.reader = nn.LSTM(width, settings.hidden, batch_first=True, bidirectional=True)
            self.conditioners = nn.ModuleList(
                Conditioner(shape, 2 * settings.hidden, settings.hidden)
                for shape in self.shapes.values()
            )
        self.multiplier = nn.Parameter(torch.ones(()))
        self.size: Tensor
        self.margin: Tensor
        self.vector_size: Tensor
        self.register_buffer("size", torch.zeros(len(self.shapes)))
        self.register_buffer("margin", torch.tensor(settings.margin))
        self.register_buffer("vector_size", torch.zeros(()))

    def observe(self, reading: Reading) -> None:
        """Calibrate the step and the size of embeddings on the first batch."""
        assert reading.vectors is not None
        if self.vector_size == 0:
            self.vector_size.copy_(reading.vectors.square().mean().sqrt())
        for number, name in enumerate(self.shapes):
            found = reading.gradients[name]
            if self.size[number] == 0 and len(found.inputs):
                lengths = found.inputs.square().sum(1).mean() * found.gradients.shape[1] ** 0.5
                self.size[number] = found.size * found.gradients.shape[1] / lengths

    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Return sigma(eta) (grad * (softmax(alpha) beta^T) + softmax(gamma) zeta^T)."""
        summary = self._summary(reading)
        found: dict[str, Factors] = {}
        for number, (name, conditioner) in enumerate(
            zip(self.shapes, self.conditioners, strict=True)
        ):
            gradients = reading.gradients[name]
            mask, beta, gamma, zeta, gate = conditioner(summary)
            rows = gradients.rows
            whole = torch.zeros(len(summary)).index_add(
                0, rows, gradients.gradients.square().sum(1)
            )
            # Each edit's gradient is scaled to one length, so that one step serves all.
            deltas = gradients.gradients / whole.sqrt().clamp(min=1e-12)[rows, None]
            step = self.size[number] * gate
            outputs = torch.cat([step[rows] * mask[rows] * deltas, step * gamma])
            inputs = torch.cat([beta[rows] * gradients.inputs, zeta])
            found[name] = Factors(inputs, outputs, torch.cat([rows, torch.arange(len(summary))]))
        return found

    def _summary(self, reading: Reading) -> Tensor:
        """Return (E, 2 hidden), the last states of both directions over each edit's text."""
        assert reading.vectors is not None and reading.lengths is not None
        packed = nn.utils.rnn.pack_padded_sequence(
            reading.vectors / self.vector_size,
            reading.lengths,
            batch_first=True,
            enforce_sorted=False,
        )
        _, (last, _) = self.reader(packed)  # (2, E, hidden)
        return torch.cat([last[0], last[1]], -1)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return RMSprop; the multiplier's rate is its own."""
        networks = [*self.reader.parameters(), *self.conditioners.parameters()]
        return torch.optim.RMSprop(
            [
                {"params": networks, "lr": self.settings.learning_rate},
                {"params": [self.multiplier], "lr": MULTIPLIER_RATE},
            ]
        )

    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """Return L_edit + lambda (KL - margin)."""
        return edited + self.multiplier * (moved - self.margin)

    def after_gradient(self) -> None:
        """Let the multiplier ascend where all else descends."""
        if self.multiplier.grad is not None:
            self.multiplier.grad.neg_()

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the multiplier from being negative."""
        self.multiplier.clamp_(min=0)

    def validated(self, success: float) -> None:
        """Ask for more locality where edits succeed."""
        if success > SUCCESS:
            settings: Any = self.settings
            self.margin.copy_((self.margin * SHRINKING).clamp(min=LAST_MARGIN * settings.margin))


@method(
    title="KE: a trained network reads the edit and gates its gradient",
    paper="De Cao et al. 2021, arXiv 2104.08164",
    when="to compare with MEND, which serves better",
    avoid="anything but a comparison",
    continues="additive",
    order_invariant=True,
)
def ke(session: Session, config: ApplySettings) -> WeightPatch:
    """Edit by a trained network (`emend train --method ke`)."""
    return edit_by_network(session, config)
