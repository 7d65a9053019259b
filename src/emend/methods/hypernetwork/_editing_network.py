"""What MEND and MALMEN share: networks from (u, delta) to better ones, and learnt steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from emend._settings import Count, NotNegative
from emend.editing.gradients import Normaliser, TokenGradients
from emend.methods.hypernetwork._network import Hypernetwork, NetworkSettings, Reading, Shapes

DEPTH = 2
"""Layers of each editing network, as published."""
STEP_RATE = 10.0
"""Step size of what is learnt of each matrix next to the networks, in learning rates."""
EVEN_STEP = 0.1
"""Factor on the first change's size for the objective "even", which a larger one overshoots."""
CLIP = 100.0
"""Largest norm of a gradient, as published."""


class ResidualLayer(nn.Module):
    """x + max(0, s * (U V x + b) + o), with scale s and shift o of each matrix.

    U and b begin at zero, so that the layer begins as the identity. The last layer of a network
    is linear, x + s * (U V x + b) + o: with the maximum it could only ever add to a number.

    Args:
        size: Length of x.
        rank: Columns of U.
        matrices: How many matrices share the layer.
        generator: Draws V.
        is_last: Whether it is the network's last.
    """

    def __init__(
        self,
        size: int,
        rank: int,
        matrices: int,
        generator: torch.Generator,
        *,
        is_last: bool = False,
    ) -> None:
        super().__init__()
        self.is_last = is_last
        rank = min(rank, size)
        self.V = nn.Parameter(torch.randn(rank, size, generator=generator) / size**0.5)
        self.U = nn.Parameter(torch.zeros(size, rank))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Parameter(torch.ones(matrices, size))
        self.shift = nn.Parameter(torch.zeros(matrices, size))

    def forward(self, x: Tensor, matrix: int) -> Tensor:
        """(N, size) -> (N, size)."""
        inner = (x @ self.V.T) @ self.U.T + self.bias
        inner = self.scale[matrix] * inner + self.shift[matrix]
        # clamp and not relu: relu has no gradient at zero, where all of it begins.
        return x + (inner if self.is_last else inner.clamp(min=0))


class EditingNetwork(nn.Module):
    """One network for all matrices of one shape.

    Args:
        shape: (out, in) of the matrices.
        matrices: How many there are.
        rank: Of each layer.
        generator: Draws the first weights.
    """

    def __init__(
        self, shape: tuple[int, int], matrices: int, rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.taken = shape[1]
        size = sum(shape)
        self.normaliser = Normaliser(size)
        self.layers = nn.ModuleList(
            ResidualLayer(size, rank, matrices, generator, is_last=number == DEPTH - 1)
            for number in range(DEPTH)
        )

    def observe(self, gradients: TokenGradients) -> None:
        """Take tokens into the running statistics."""
        self.normaliser.observe(torch.cat([gradients.inputs, gradients.gradients], 1))

    def forward(self, gradients: TokenGradients, matrix: int) -> tuple[Tensor, Tensor]:
        """Return better inputs (N, in) and gradients (N, out) of a matrix's tokens."""
        x = self.normaliser(torch.cat([gradients.inputs, gradients.gradients], 1))
        for layer in self.layers:
            x = layer(x, matrix)
        return x[:, : self.taken], x[:, self.taken :]


class EditingNetworks(nn.Module):
    """The networks of all shapes, and which matrix is which number of its network.

    Args:
        shapes: The matrices.
        rank: See `EditingNetwork`.
        seed: Of the first weights.
    """

    def __init__(self, shapes: Shapes, rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        distinct = sorted(set(shapes.values()))
        self.places: dict[str, tuple[int, int]] = {}  # matrix -> network, number in it
        counts = [0] * len(distinct)
        for name, shape in shapes.items():
            kind = distinct.index(shape)
            self.places[name] = kind, counts[kind]
            counts[kind] += 1
        self.networks = nn.ModuleList(
            EditingNetwork(shape, count, rank, generator)
            for shape, count in zip(distinct, counts, strict=True)
        )

    def observe(self, name: str, gradients: TokenGradients) -> None:
        """Take tokens of the named matrix into the statistics of its shape."""
        network = self.networks[self.places[name][0]]
        assert isinstance(network, EditingNetwork)
        network.observe(gradients)

    def forward(self, name: str, gradients: TokenGradients) -> tuple[Tensor, Tensor]:
        """Return better inputs and gradients of the named matrix's tokens."""
        kind, number = self.places[name]
        return self.networks[kind](gradients, number)


@dataclass(frozen=True)
class SteppedSettings(NetworkSettings):
    """Settings of editing networks and of their training."""

    rank: Count = 64
    """Rank of each layer of the editing networks (1920 in the papers)."""
    edit_weight: NotNegative = 1.0
    """Weight of the edit's loss next to the locality loss (c_edit / c_loc; 0.1 in MEND's paper)."""


class SteppedNetwork(Hypernetwork):
    """Editing networks, and for each matrix a step, which begins at 1 (of a calibrated size).

    Attributes:
        first: Root mean square of what the first change adds at its own tokens, as a share of
            the matrix's output there.
    """

    first: ClassVar[float]
    settings_type: ClassVar[type[NetworkSettings]] = SteppedSettings

    def __init__(self, shapes: Shapes, width: int, settings: SteppedSettings) -> None:
        super().__init__(shapes, width, settings)
        self.editing = EditingNetworks(self.shapes, settings.rank, settings.seed)
        self.step = nn.Parameter(torch.ones(len(self.shapes)))
        self.calibration: Tensor
        self.register_buffer("calibration", torch.zeros(len(self.shapes)))

    def observe(self, reading: Reading) -> None:
        """See `Hypernetwork.observe`; the first batch also calibrates the size of a step."""
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            self.editing.observe(name, gradients)
            if self.calibration[number] == 0 and len(gradients.inputs):
                with torch.no_grad():
                    inputs, _ = self.editing(name, gradients)
                    overlap = (inputs * gradients.inputs).sum(1).square().mean().sqrt()
                    share = self.first * (EVEN_STEP if self.settings.objective == "even" else 1.0)
                    size = share * gradients.size / overlap.clamp(min=1e-12)
                    self.calibration[number] = size

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, with a step size of its own for what is not of the editing networks."""
        rate = self.settings.learning_rate
        networks = {"params": list(self.editing.parameters()), "lr": rate}
        own = [parameter for _, parameter in self.named_parameters(recurse=False)]
        return torch.optim.Adam([networks, {"params": own, "lr": STEP_RATE * rate}])

    def after_gradient(self) -> None:
        """Clip the gradient."""
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)

    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """Return c_edit L_edit + L_loc."""
        return self.settings.edit_weight * edited + moved
