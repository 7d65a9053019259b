"""Losses that take an answer away; each is an `emend.editing.Aim` for the search of any method.

Patil, Hase and Bansal 2024, "Can Sensitive Information Be Deleted From LLMs?", arXiv 2309.17410,
section 5. With p_l = softmax(W_U ln_f(h_l)) at a position where the answer's token y is predicted,
for L the protected layers and the last one:

    fact erasure      p(y)
    head projection   mean over l in L of  max(0, p_l(y) - p_l(k-th largest))
                                         + max(0, p_l(k-th smallest) - p_l(y))
    max-entropy       - mean over l in L of the entropy of p_l

The edit's target is the answer itself, so that every token of it is a position of its own.

Deviation: the margins of head projection are of log-probabilities by default. In a middle layer the
answer may lead with a probability of 0.01, where the published margin has hardly a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.editing import Scored

RANK = 20
"""Rank that the answer's tokens must fall below at every protected layer."""


def _log_probs(scored: Scored) -> Tensor:
    """Return the log-probabilities of all layers that are read, (L, N, vocabulary)."""
    return torch.stack([one.log_softmax(-1) for one in (*scored.lens, scored.logits)])


def _own(values: Tensor, scored: Scored) -> Tensor:
    """Pick the answer's token from (L, N, vocabulary): (L, N)."""
    tokens = scored.tokens.to(values.device)
    return values.gather(-1, tokens[None, :, None].expand(len(values), -1, 1))[..., 0]


@dataclass(frozen=True)
class FactErasure:
    """Minimise the answer's probability itself, in all steps."""

    layers: tuple[int, ...] = ()
    rephrasings: int = 0
    stops: bool = False

    @property
    def name(self) -> str:
        """The name in records."""
        return "fact_erasure"

    def loss(self, scored: Scored) -> Tensor:
        """Return the probability of each token, (N,)."""
        return _own(scored.logits.softmax(-1)[None], scored)[0]

    def reached(self, scored: Scored) -> Tensor:
        """Return whether each token is no longer top-1, (N,) bool."""
        return scored.logits.detach().argmax(-1) != scored.tokens

    def record(self) -> dict[str, Any]:
        """Return name and settings."""
        return {"name": self.name, "rephrasings": self.rephrasings}


@dataclass(frozen=True)
class HeadProjection:
    """Move the answer out of the k most and the k least probable tokens of each protected layer.

    Attributes:
        layers: Layers that are protected, besides the last.
        rank: k.
        published: Take margins of probabilities, not of their logarithms.
        rephrasings: See `Aim`.
        stops: See `Aim`.
        shortest: Whether values are scaled down to the least length at which the answer is out of
            both ends: what is longer moves other answers, and hides no more.
    """

    layers: tuple[int, ...]
    rank: int = RANK
    published: bool = False
    rephrasings: int = 0
    stops: bool = True
    shortest: bool = True

    @property
    def name(self) -> str:
        """The name in records."""
        return "head_projection"

    def loss(self, scored: Scored) -> Tensor:
        """Return the mean margin over layers, (N,), in nats (published: in probabilities)."""
        above, below = self._margins(scored)
        return (above.clamp(min=0) + below.clamp(min=0)).mean(0)

    def reached(self, scored: Scored) -> Tensor:
        """Return whether each token is out of both ends at all layers, (N,) bool."""
        above, below = self._margins(scored)
        return ((above < 0) & (below < 0)).all(0)

    def _margins(self, scored: Scored) -> tuple[Tensor, Tensor]:
        """Return by how much tokens are above the k-th largest, below the k-th smallest: (L, N)."""
        values = _log_probs(scored)
        values = values.exp() if self.published else values
        rank = min(self.rank, values.shape[-1])
        own = _own(values, scored)
        largest = values.topk(rank).values[..., -1]
        smallest = values.topk(rank, largest=False).values[..., -1]
        return own - largest, smallest - own

    def record(self) -> dict[str, Any]:
        """Return name and settings."""
        return {
            "name": self.name,
            "layers": list(self.layers),
            "rank": self.rank,
            "published": self.published,
            "rephrasings": self.rephrasings,
            "shortest": self.shortest,
        }


@dataclass(frozen=True)
class MaxEntropy:
    """Make the distributions of the protected layers as flat as can be.

    Attributes:
        layers: Layers that are protected, besides the last.
        rephrasings: See `Aim`.
        stops: See `Aim`.
    """

    layers: tuple[int, ...]
    rephrasings: int = 0
    stops: bool = False

    @property
    def name(self) -> str:
        """The name in records."""
        return "max_entropy"

    def loss(self, scored: Scored) -> Tensor:
        """Return the mean entropy over layers, negative, (N,) in nats."""
        values = _log_probs(scored)
        return (values.exp() * values).sum(-1).mean(0)

    def reached(self, scored: Scored) -> Tensor:
        """Return whether each token is no longer top-1, (N,) bool."""
        return scored.logits.detach().argmax(-1) != scored.tokens

    def record(self) -> dict[str, Any]:
        """Return name and settings."""
        layers = list(self.layers)
        return {"name": self.name, "layers": layers, "rephrasings": self.rephrasings}
