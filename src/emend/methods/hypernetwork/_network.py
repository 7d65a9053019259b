"""What a hypernetwork is: a module from the token gradients of edits to factors of changes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emend._brief import brief
from emend._settings import Count, Positive, Seed, Whole
from emend.editing.gradients import TokenGradients

Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of each edited matrix, by its module's full name."""


@dataclass(frozen=True)
class NetworkSettings:
    """Settings that all hypernetworks share: how they are trained."""

    layers: tuple[int, ...] | None = None
    """Blocks whose MLP matrices are edited; by default the last third, at least three."""
    steps: Count = 600
    """Steps of training, at most."""
    batch_size: Count = 10
    """Edits in one step, each edited apart (MALMEN: together)."""
    learning_rate: Positive = 1e-3
    """Step size of the optimiser; published ones (1e-6) are for models a thousand times larger."""
    kept_texts: Whole = 2
    """Locality texts drawn for each edit of a step."""
    validate_every: Count = 50
    """Steps between validations; a checkpoint is written after each."""
    patience: Count = 6
    """Validations without a better figure after which training stops."""
    seed: Seed = 0
    """Seed of the first weights and of all draws."""


@brief
@dataclass(frozen=True)
class Factors:
    """A change of one matrix: sum over n of outputs[n] inputs[n]^T.

    Attributes:
        inputs: (N, in).
        outputs: (N, out).
        rows: (N,) int64, the edit that each row belongs to; None where all edits share the rows.
    """

    inputs: Tensor
    outputs: Tensor
    rows: Tensor | None


@dataclass(frozen=True)
class Reading:
    """What a hypernetwork is told of E edits.

    Attributes:
        gradients: Token gradients of each edited matrix.
        vectors: (E, T, width) embeddings of "old >> new || input"; None where it reads no text.
        lengths: (E,) int64, how many of the T are real.
    """

    gradients: Mapping[str, TokenGradients]
    vectors: Tensor | None = None
    lengths: Tensor | None = None


class Hypernetwork(nn.Module, ABC):
    """A network for the named matrices of one model.

    Args:
        shapes: The edited matrices.
        width: Size of the model's embeddings.
        settings: Its settings.

    Attributes:
        reads_text: Whether it is given the text of the edit.
    """

    reads_text: ClassVar[bool] = False
    settings_type: ClassVar[type[NetworkSettings]] = NetworkSettings

    def __init__(self, shapes: Shapes, width: int, settings: Any) -> None:
        super().__init__()
        self.shapes = {name: (int(out), int(taken)) for name, (out, taken) in shapes.items()}
        self.width = width
        self.settings = settings

    @abstractmethod
    def observe(self, reading: Reading) -> None:
        """Take what is about to be trained on into the running statistics."""

    @abstractmethod
    def forward(self, reading: Reading) -> dict[str, Factors]:
        """The change of each matrix."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser of everything that is trained."""

    @abstractmethod
    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """The loss of a step.

        Args:
            edited: Mean negative log-likelihood of the targets after the edit.
            moved: Mean KL divergence of the locality texts, base model from edited.
        """

    def after_gradient(self) -> None:
        """What is to be done between the backward pass and the optimiser's step."""

    def after_step(self) -> None:
        """What is to be done after the optimiser's step."""

    def validated(self, success: float) -> None:
        """Told the share of validation edits that succeed."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: what is needed to build it again."""
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "width": self.width,
            "settings": dataclasses.asdict(self.settings),
        }
