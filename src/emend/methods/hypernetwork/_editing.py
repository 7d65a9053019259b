"""The editing network of MEND and MALMEN: from (u, delta) of a token to better ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emend.editing.gradients import TokenGradients
from emend.editing.normaliser import Normaliser
from emend.methods.hypernetwork._network import Shapes


class ResidualLayer(nn.Module):
    """x + max(0, s * (U V x + b) + o), with scale s and shift o of each matrix.

    U and b begin at zero, so that the layer begins as the identity. The last layer of a network
    is linear, x + s * (U V x + b) + o: with the maximum it could add to a number and never take
    from it.

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
        depth: Number of layers.
        generator: Draws the first weights.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        matrices: int,
        rank: int,
        depth: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.taken = shape[1]
        size = sum(shape)
        self.normaliser = Normaliser(size)
        self.layers = nn.ModuleList(
            ResidualLayer(size, rank, matrices, generator, is_last=number == depth - 1)
            for number in range(depth)
        )

    def observe(self, gradients: TokenGradients) -> None:
        """Take tokens into the running statistics."""
        self.normaliser.observe(torch.cat([gradients.inputs, gradients.gradients], 1))

    def forward(self, gradients: TokenGradients, matrix: int) -> tuple[Tensor, Tensor]:
        """Better inputs (N, in) and gradients (N, out) of a matrix's tokens."""
        x = self.normaliser(torch.cat([gradients.inputs, gradients.gradients], 1))
        for layer in self.layers:
            x = layer(x, matrix)
        return x[:, : self.taken], x[:, self.taken :]


class EditingNetworks(nn.Module):
    """The networks of all shapes, and which matrix is which number of its network.

    Args:
        shapes: The matrices.
        rank: See `EditingNetwork`.
        depth: See `EditingNetwork`.
        seed: Of the first weights.
    """

    def __init__(self, shapes: Shapes, rank: int, depth: int, seed: int) -> None:
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
            EditingNetwork(shape, count, rank, depth, generator)
            for shape, count in zip(distinct, counts, strict=True)
        )

    def observe(self, name: str, gradients: TokenGradients) -> None:
        """Take tokens of the named matrix into the statistics of its shape."""
        network = self.networks[self.places[name][0]]
        assert isinstance(network, EditingNetwork)
        network.observe(gradients)

    def forward(self, name: str, gradients: TokenGradients) -> tuple[Tensor, Tensor]:
        """Better inputs and gradients of the named matrix's tokens."""
        kind, number = self.places[name]
        return self.networks[kind](gradients, number)
