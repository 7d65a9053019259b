"""Per-token inputs and output gradients of linear modules, and their running normalisation.

The gradient of a linear layer y = W u is a sum over tokens, sum_t delta_t u_t^T, with u_t the
layer's input and delta_t the gradient at its output. Gradient editors (MEND, MALMEN, KE, UltraEdit)
work on the pairs (u_t, delta_t) and never on the matrix.

A leaf of zeros is added to each module's output at the chosen tokens; the gradient of the loss at
that leaf is delta_t. So no parameter needs a gradient, layers below the lowest module take no part
in the backward pass, and no architecture is known by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emend.editing.rows import Row
from emend.errors import InvalidInput, NumericalFailure
from emend.models import ModelView
from emend.models.forward import batches, check_length, evaluating, head_at, target_nll
from emend.models.hooks import frozen, hooked
from emend.models.placing import device_of
from emend.models.positions import Encoded, pad
from emend.models.structure import projection_shape
from emend.models.wrapping import find_plain

Where = Literal["targets", "all"]
"""Tokens: those that predict a target token, or all whose gradient is not zero."""


@dataclass(frozen=True)
class TokenGradients:
    """Inputs and output gradients of one module; N tokens, float32.

    Attributes:
        inputs: (N, in), u.
        gradients: (N, out), delta, of the mean target loss of the token's row.
        rows: (N,) int64, row of each token; ascending.
        size: Root mean square of the module's output at these tokens.
    """

    inputs: Tensor
    gradients: Tensor
    rows: Tensor
    size: float


@dataclass(frozen=True)
class _Part:
    """One batch's (u, delta, rows) of one module, and the squares of its outputs."""

    inputs: Tensor
    gradients: Tensor
    rows: Tensor
    squares: float


def mlp_modules(view: ModelView, layer: int) -> tuple[list[str], str]:
    """Return the names of a layer's projections into the MLP (gate and up, or up), and of the down.

    Raises:
        UnsupportedModel: The layer has no dense MLP.
    """
    down, inner = view.down_projection(layer), view.intermediate_size(layer)
    inside = set(view.attention(layer).modules())
    mlp = view.mlp(layer)  # of a mixture, only the shared expert
    holder = view.layer(layer) if mlp is down else mlp
    wanted = (
        (inner, view.hidden_size),
        (2 * inner, view.hidden_size),
    )  # apart, or gate and up fused to one
    into = [
        view.name_of(module)
        for module in holder.modules()
        if module is not down and module not in inside and projection_shape(module) in wanted
    ]
    return into, view.name_of(down)


def linear_modules(view: ModelView, names: Sequence[str]) -> dict[str, nn.Module]:
    """Find modules of the model by their full names.

    Raises:
        InvalidInput: A module does not exist or is not linear.
    """
    found: dict[str, nn.Module] = {}
    for name in names:
        module = find_plain(view.model, name)
        if module is None or projection_shape(module) is None:
            raise InvalidInput(
                f"{type(view.model).__name__} has no linear module {name!r}: "
                "name modules as named_modules() of the plain model does, or leave the setting out"
            )
        found[name] = module
    return found


def token_gradients(
    view: ModelView,
    rows: Sequence[Row],
    modules: Mapping[str, nn.Module],
    *,
    where: Where = "all",
    batch_size: int = 32,
) -> dict[str, TokenGradients]:
    """Compute inputs and output gradients of linear modules, in one pass per batch.

    The loss of a row is the mean negative log-likelihood of its target tokens; rows are summed, so
    that the gradients of one do not depend on the others.

    Args:
        view: The model; it is not changed, and no parameter gets a gradient.
        rows: Prompts with their targets, as `context_rows` builds them.
        modules: The modules by name, Linear or Conv1D.
        where: Return only the tokens that predict a target token, or all whose gradient is not
            exactly zero.
        batch_size: Rows in one pass.

    Raises:
        NumericalFailure: An input or a gradient is not finite.
    """
    parts: dict[str, list[_Part]] = {name: [] for name in modules}
    with evaluating(view.model), frozen(view.model), torch.enable_grad():
        for members in batches([len(row.ids) for row in rows], batch_size):
            batch = _batch(view, [rows[n] for n in members], modules, where)
            for name, part in batch.items():
                owners = torch.tensor(members)[part.rows]
                parts[name].append(_Part(part.inputs, part.gradients, owners, part.squares))
    return {name: _joined(name, found) for name, found in parts.items()}


def _batch(
    view: ModelView, rows: Sequence[Row], modules: Mapping[str, nn.Module], where: Where
) -> dict[str, _Part]:
    padded = pad([row.ids for row in rows])
    check_length(view.model, padded.input_ids.shape[1])
    scored, tokens, weights = target_places(rows)
    places = scored if where == "targets" else padded.attention_mask.nonzero().unbind(1)
    seen: dict[str, tuple[Tensor, Tensor, float]] = {}
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(hooked(module, _leaf(seen, name, len(rows), places)))
        logits = forward_at(view, padded, *scored)  # (M, vocabulary)
    loss = target_nll(logits.float(), tokens, weights).sum()
    leaves = [seen[name][1] for name in modules]
    gradients: Any = torch.autograd.grad(loss, leaves, allow_unused=True)
    owners = places[0]
    found: dict[str, _Part] = {}
    for name, leaf, gradient in zip(modules, leaves, gradients, strict=True):
        delta = torch.zeros_like(leaf) if gradient is None else gradient
        kept = torch.ones(len(delta), dtype=torch.bool)
        if where == "all":
            kept = (delta != 0).any(1).cpu()
        inputs, _, squares = seen[name]
        index = kept.nonzero()[:, 0].to(delta.device)
        found[name] = _Part(inputs[index].cpu(), delta[index].cpu(), owners[kept], squares)
    return found


def _leaf(
    seen: dict[str, tuple[Tensor, Tensor, float]],
    name: str,
    count: int,
    places: tuple[Tensor, ...],
) -> Any:
    """Make the hook that records a module's input and adds a leaf of zeros to its output."""

    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        at = tuple(index.to(output.device) for index in places)
        given = args[0].detach().reshape(count, -1, args[0].shape[-1])[at].float()
        apart = output.reshape(count, -1, output.shape[-1])  # OPT folds rows and tokens
        leaf = torch.zeros(len(at[0]), output.shape[-1], device=output.device, requires_grad=True)
        squares = float(apart.detach()[at].float().square().mean())
        seen[name] = given, leaf, squares
        return apart.index_put(at, leaf.to(output.dtype), accumulate=True).reshape(output.shape)

    return add


def target_places(rows: Sequence[Row]) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Locate where the targets of right-padded rows are predicted.

    Returns:
        Rows and columns (M,) of the predicting tokens, the target tokens (M,), and weights (M,):
        one over the row's number of target tokens.
    """
    numbers: list[int] = []
    columns: list[int] = []
    tokens: list[int] = []
    weights: list[float] = []
    for number, row in enumerate(rows):
        count = len(row.targets)
        numbers += [number] * count
        columns += range(len(row.ids) - count, len(row.ids))
        tokens += row.targets
        weights += [1.0 / count] * count
    places = torch.tensor(numbers), torch.tensor(columns)
    return places, torch.tensor(tokens), torch.tensor(weights)


def forward_at(view: ModelView, batch: Encoded, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the logits (M, vocabulary) at some positions of a right-padded batch."""
    model: Any = view.model
    device = device_of(view.embeddings)
    with head_at(view.model, rows, columns) as pick:
        output = model(
            input_ids=batch.input_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
            use_cache=False,
        )
        return pick(output.logits)


def _joined(name: str, parts: Sequence[_Part]) -> TokenGradients:
    rows = torch.cat([part.rows for part in parts])
    order = torch.argsort(rows, stable=True)
    inputs = torch.cat([part.inputs for part in parts])[order]
    gradients = torch.cat([part.gradients for part in parts])[order]
    if not bool(inputs.isfinite().all() and gradients.isfinite().all()):
        raise NumericalFailure(
            f"the gradient at {name} is not finite, expected finite numbers: "
            "check the model's weights, or load it in float32"
        )
    weights = [max(len(part.rows), 1) for part in parts]
    mean = sum(p.squares * w for p, w in zip(parts, weights, strict=True)) / sum(weights)
    return TokenGradients(inputs, gradients, rows[order], mean**0.5)


EPSILON = 1e-7
"""A dimension whose deviation is below this part of the mean deviation is set to zero."""


class Normaliser(nn.Module):
    """Running mean and variance of vectors, merged batch by batch, in float64.

    Chan, Golub and LeVeque 1983. The variance is the biased one, so that a single row has one
    (zero).

    Args:
        size: Length of the vectors.
        prior: Pseudo-rows counted with those seen: of mean zero, and in every direction as large
            as those seen are on average. Without them the first row is its own mean and is
            normalised to zero; with many rows seen they have no effect.
    """

    def __init__(self, size: int, prior: float = 0.0) -> None:
        super().__init__()
        self.prior = prior
        self.count: Tensor
        self.mean: Tensor
        self.squares: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """Merge (N, size) into the statistics."""
        if not len(vectors):
            return
        rows = vectors.double()
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self.mean
        between = shift.square() * (self.count * len(rows) / total)
        self.squares += (rows - mean).square().sum(0) + between
        self.mean += shift * (len(rows) / total)
        self.count.copy_(total)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (size,), prior included; infinite where constant."""
        count = self.count.clamp(min=1)
        share = self.count / (count + self.prior)
        level = (self.squares / count + self.mean.square()).mean()  # mean square of all dimensions
        mean = share * self.mean
        # The pseudo-rows, of variance `level`, merged with the rows seen.
        variance = share * self.squares / count + (1 - share) * level
        variance = variance + share * (1 - share) * self.mean.square()
        deviation = variance.sqrt()
        varies = deviation > EPSILON * deviation.mean()
        return mean, torch.where(varies, deviation, torch.inf)

    def forward(self, vectors: Tensor) -> Tensor:
        """Normalise to mean 0 and variance 1 over the rows seen, (N, size) float32."""
        mean, deviation = self.mean_and_deviation()
        return ((vectors.double() - mean) / deviation).float()


class Whitener(Normaliser):
    """A normaliser to unit covariance, not unit variance only.

    Args:
        size: Length of the vectors.
        prior: As for `Normaliser`, which is used until more than ``size`` + 1 rows were seen.
    """

    def __init__(self, size: int, prior: float = 0.0) -> None:
        super().__init__(size, prior)
        self.products: Tensor
        self.register_buffer("products", torch.zeros(size, size, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """Merge (N, size) into the statistics."""
        if not len(vectors):
            return
        rows = vectors.double()
        apart = rows - rows.mean(0)
        shift = rows.mean(0) - self.mean
        weight = self.count * len(rows) / (self.count + len(rows))
        self.products += apart.T @ apart + weight * torch.outer(shift, shift)
        super().observe(vectors)

    def forward(self, vectors: Tensor, floor: float = 1e-6) -> Tensor:
        """Whiten: (x - mean) Cov^(-1/2), (N, size) float32.

        Eigenvalues below ``floor`` times the largest are raised to that.
        """
        if self.count <= len(self.mean) + 1:
            return super().forward(vectors)
        values, directions = torch.linalg.eigh(self.products / self.count)
        scale = values.clamp(min=floor * float(values[-1])).rsqrt()
        return ((vectors.double() - self.mean) @ (directions * scale) @ directions.T).float()
