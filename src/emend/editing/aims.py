"""What the search for target values minimises: by default the target's negative log-likelihood.

An `Aim` replaces that loss: erasing an answer, or making two answers equally probable, is the same
search with another objective. It sees, at each position where a token of the target is predicted,
the logits of the model and, where it asks for them, the lens logits W_U ln_f(h_l) of intermediate
layers. Everything else of the search is as it is: contexts, what is preserved, clamp, optimizer.

The methods that take one declare `About.aims`; pass it as ``method.edit(..., aim=...)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from emend._brief import brief
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.models.forward import target_nll


@brief
@dataclass(frozen=True)
class Scored:
    """The N positions at which tokens of targets are predicted, of all contexts and edits.

    Attributes:
        logits: (N, vocabulary), of the model.
        lens: Of each of the aim's layers, in its order: (N, vocabulary) lens logits.
        tokens: (N,) int64, the token of the target at each position.
        steps: (N,) int64, its number in the target; 0 is predicted at the prompt's last token.
    """

    logits: Tensor
    lens: tuple[Tensor, ...]
    tokens: Tensor
    steps: Tensor


class Aim(Protocol):
    """A loss for each scored position.

    Attributes:
        name: Name in records.
        layers: Layers whose outputs are read through the lens, none below the edited one.
        rephrasings: Most rephrase probes of each edit whose targets are scored too; those that
            name the subject serve.
        stops: Whether the search may end early: once `reached` holds everywhere and the loss
            hardly falls, or once it is nearly 0. If not, all steps are taken.
    """

    @property
    def name(self) -> str:
        """See above; attributes that are read only."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """See above."""
        ...

    @property
    def rephrasings(self) -> int:
        """See above."""
        ...

    @property
    def stops(self) -> bool:
        """See above."""
        ...

    def loss(self, scored: Scored) -> Tensor:
        """Compute the loss of each position, (N,); its weighted mean over an edit's is minimised.

        It should be in the order of one nat, as what is preserved is weighed against it.
        """
        ...

    def reached(self, scored: Scored) -> Tensor:
        """Decide for each position whether the aim is reached, (N,) bool."""
        ...

    def record(self) -> dict[str, Any]:
        """Return name and settings, for the patch and for the key of cached values.

        Whatever the loss depends on must be in it, as plain data.
        """
        ...


@dataclass(frozen=True)
class TargetLikelihood:
    """The default: raise the probability of the target.

    Attributes:
        enough: Probability from which on a target token adds no loss; 1 for none.
        layers: None are read.
        rephrasings: See `Aim`.
        stops: See `Aim`.
    """

    enough: float = 1.0
    layers: tuple[int, ...] = ()
    rephrasings: int = 0
    stops: bool = True

    @property
    def name(self) -> str:
        """The name in records."""
        return "target_likelihood"

    def loss(self, scored: Scored) -> Tensor:
        """Return the negative log-likelihood of each token, or its part above `enough`."""
        return target_nll(scored.logits, scored.tokens, spared=-math.log(self.enough))

    def reached(self, scored: Scored) -> Tensor:
        """Return whether each token is top-1."""
        return scored.logits.detach().argmax(-1) == scored.tokens

    def record(self) -> dict[str, Any]:
        """Return name and settings."""
        return {"name": self.name, "enough": self.enough, "rephrasings": self.rephrasings}


def shortens(aim: Aim) -> bool:
    """Return whether values are scaled down to the least length that reaches an aim.

    That is for an aim whose loss is 0 once it is reached; it then has an attribute ``shortest``
    that is true.
    """
    return bool(getattr(aim, "shortest", False))


def check_aim(aim: Aim, view: ModelView, layer: int) -> tuple[int, ...]:
    """Return the numbers of the layers that an aim reads.

    Args:
        aim: The aim.
        view: The model.
        layer: The edited layer, or the lowest of several.

    Raises:
        InvalidInput: The model has no such layer, or one is below the edited layer.
    """
    if not aim.layers:
        return ()
    numbers = view.numbered(aim.layers)
    if min(numbers) < layer:
        raise InvalidInput(
            f"the aim {aim.name} reads layer {min(numbers)}, expected none below the edited "
            f"layer {layer}: an edit changes nothing below itself; leave it out, or edit lower"
        )
    return numbers


def lens_logits(
    view: ModelView, layers: Sequence[int], states: Sequence[Tensor], last: Tensor
) -> tuple[Tensor, ...]:
    """Read hidden states through the final norm and the head, W_U ln_f(h_l).

    Args:
        view: The model.
        layers: Numbers of the layers.
        states: Of each, (N, hidden_size).
        last: (N, vocabulary), the model's own logits, which are those of the last layer.
    """
    final = view.num_layers - 1
    return tuple(
        last if layer == final else view.logits(state)
        for layer, state in zip(layers, states, strict=True)
    )
