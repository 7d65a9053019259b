"""Audit: what differs between a model and its base, and which objects an edit may have written.

Related work: Youssef et al. 2025, "Tracing and Reversing Rank-One Model Edits", arXiv 2505.20819
(EditScope), infers the object of an edit from the edited weights alone, by training the unedited
ones until fixed tokens, with the edited matrix swapped in, decode it. emend does not offer that
inference. With the base, the singular value decomposition of the difference is more informative:

    W' - W = sum_i s_i u_i v_i^T

Its rank and the matrices that differ distinguish an edit from fine-tuning; u_1 is the direction
that a rank-one edit writes into the residual stream. It is decoded twice: through the lm_head (the
logit lens), which shows little of an edit in an early layer, and by adding it to the base model's
activations on random tokens, where the object of an edit is what later tokens make more probable.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput, UnsupportedModel
from emend.models import ModelView, attachments
from emend.models.forward import evaluating
from emend.models.hooks import hooked
from emend.models.placing import device_of, weights_of, widened
from emend.models.structure import PROJECTIONS
from emend.models.wrapping import find_plain, plain_modules
from emend.patches._base import check_base, find_modules
from emend.patches._factors import compress
from emend.patches._weight import WeightPatch

READ_RANK = 8
"""Only changes of at most this rank are decoded: with more, no singular vector is an object's."""

ROWS, TOKENS, AT = 256, 6, 2
"""Number of random texts, their length in tokens, and the token that the direction is added at."""

BEST = 0.025
"""A token's score is its mean gain over this best share of positions: only some tokens call for an
object."""


@dataclass(frozen=True)
class Candidate:
    """A token that a direction makes more probable.

    Attributes:
        token: The token's text.
        score: Its gain in log-probability (nats), mean over the best 2.5% of positions.
    """

    token: str
    score: float


@dataclass(frozen=True)
class MatrixChange:
    """The change of one matrix.

    Attributes:
        name: The module's full name; the parameter's, if it is no module's ``weight``.
        shape: (out, in).
        rank: Number of singular values above those of rounding errors.
        norm: Frobenius norm of the difference.
        relative_norm: The norm divided by that of the base's matrix.
        values: The largest singular values, at most 10.
        edits: Ids of the edits whose rows change it, for a patch of emend.
        lens: Top tokens of the first left singular vector through the lm_head.
        candidates: Tokens that may be the object of an edit, best first; empty without a
            tokenizer, at a rank above 8, or if the matrix does not write into the residual stream.
    """

    name: str
    shape: tuple[int, int]
    rank: int
    norm: float
    relative_norm: float
    values: tuple[float, ...]
    edits: tuple[str, ...] = ()
    lens: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The differences between two models.

    Attributes:
        changes: The changed matrices, the largest relative norm first.
        others: Names of other parameters (biases, norms) that differ.
        matrices: Number of matrices compared.
    """

    changes: tuple[MatrixChange, ...]
    others: tuple[str, ...]
    matrices: int

    @property
    def verdict(self) -> str:
        """Either "same", "low rank" (an edit or a merged adapter) or "full rank" (training)."""
        if not self.changes and not self.others:
            return "same"
        low = all(4 * change.rank <= min(change.shape) for change in self.changes)
        return "low rank" if low and self.changes and not self.others else "full rank"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {"verdict": self.verdict, **asdict(self)}


def audit(
    base: nn.Module, other: nn.Module | WeightPatch, tokenizer: Any = None, *, tokens: int = 5
) -> Audit:
    """Compare a model or a weight patch with the base.

    Args:
        base: The model before the change.
        other: A model of the same structure, or a weight patch for the base.
        tokenizer: The base's tokenizer, to decode the directions of low-rank changes.
        tokens: Number of tokens to report for each direction.

    Returns:
        The audit. Candidates are guesses: every low-rank change has a best one, edit or not. See
        the documentation for how often it was the true object.

    Raises:
        InvalidInput: The models have other parameters or shapes, a patch is attached to one, or
            the patch is for another model.
    """
    if attachments(base):
        raise InvalidInput("a patch is attached to the base model, expected it bare: detach it")
    weights = {name: weight for name, weight in weights_of(base) if weight.is_floating_point()}
    matrices = sum(weight.ndim == 2 for weight in weights.values())
    if isinstance(other, WeightPatch):
        check_base(base, other.base)
        found, others = _of_patch(base, other), ()
    else:
        found, others = _of_models(base, other, weights)
    found.sort(key=lambda one: -one[0].relative_norm)
    changes = [change for change, _, _ in found]
    if tokenizer is not None and any(change.rank <= READ_RANK for change in changes):
        reader = _Reader(base, tokenizer, tokens)
        changes = [reader.read(change, u, v) for change, u, v in found]
    return Audit(tuple(changes), others, matrices)


_Found = tuple[MatrixChange, Tensor, Tensor]  # with the first left and right singular vectors


def _of_patch(base: nn.Module, patch: WeightPatch) -> list[_Found]:
    found: list[_Found] = []
    modules = find_modules(base, patch.factors, patch.base)
    for name, factor in patch.factors.items():
        weight = modules[name].get_parameter("weight")
        if factor.norm() == 0.0:
            continue
        small, _ = compress(factor)
        values = small.A.double().square().sum(1)  # each row is the root of its value times v
        owners = tuple(dict.fromkeys(factor.columns or (edit.id for edit in patch.edits)))
        change = _described(name, small.shape, values, 0.0, weight, owners)
        found.append((change, small.B[:, 0], small.A[0]))
    return found


def _of_models(
    base: nn.Module, other: nn.Module, weights: Mapping[str, Tensor]
) -> tuple[list[_Found], tuple[str, ...]]:
    if attachments(other):
        raise InvalidInput("a patch is attached to the other model: detach it, or audit the patch")
    found: list[_Found] = []
    others: list[str] = []
    theirs = {name: weight for name, weight in weights_of(other) if weight.is_floating_point()}
    for name in sorted({*weights, *theirs}):
        old, new = weights.get(name), theirs.get(name)
        if old is None or new is None or old.shape != new.shape:
            shapes = [None if one is None else tuple(one.shape) for one in (old, new)]
            raise InvalidInput(
                f"parameter {name} has shape {shapes[0]} in the base and {shapes[1]} in the other, "
                "expected two models of one structure"
            )
        difference = new.double().cpu() - old.double().cpu()
        if not bool(difference.any()):
            continue
        if difference.ndim != 2:
            others.append(name)
            continue
        module = name.removesuffix(".weight")
        if type(find_plain(base, module)).__name__ == "Conv1D":  # stored transposed
            difference = difference.T
        u, values, vh = torch.linalg.svd(difference, full_matrices=False)
        noise = _rounding(old, new)
        change = _described(module, tuple(difference.shape), values, noise, old, ())
        found.append((change, u[:, 0].float(), vh[0].float()))
    return found, tuple(others)


def _described(
    name: str, shape: Any, values: Tensor, noise: float, weight: Tensor, edits: tuple[str, ...]
) -> MatrixChange:
    norm = float(values.norm())
    rank = int((values > max(noise, 1e-6 * float(values[0]))).sum())
    relative = norm / max(float(weight.detach().double().norm()), 1e-30)
    largest = tuple(values[: min(rank, 10)].tolist())
    return MatrixChange(name, (shape[0], shape[1]), rank, norm, relative, largest, edits)


def _rounding(old: Tensor, new: Tensor) -> float:
    """Bound the largest singular value that rounding the weights alone gives a difference."""
    step = max(torch.finfo(old.dtype).eps, torch.finfo(new.dtype).eps) / 2
    root_mean_square = float(new.double().square().mean().sqrt())
    return step * root_mean_square * (old.shape[0] ** 0.5 + old.shape[1] ** 0.5)


def _inside_attention(view: ModelView) -> set[int]:
    """Return ids of the query, key and value projections: all but the last of each attention."""
    found: set[int] = set()
    for layer in range(view.num_layers):
        with suppress(UnsupportedModel):  # a layer without attention
            modules = [module for _, module in plain_modules(view.attention(layer))]
            projections = [one for one in modules if isinstance(one, PROJECTIONS)]
            found.update(map(id, projections[:-1]))
    return found


class _Reader:
    """Decodes directions of the residual stream with the base model."""

    def __init__(self, model: nn.Module, tokenizer: Any, tokens: int) -> None:
        self._view = ModelView(model)
        self._tokenizer = tokenizer
        self._count = tokens
        special = set(tokenizer.all_special_ids)
        ordinary = [
            i for i in range(min(len(tokenizer), self._view.vocabulary)) if i not in special
        ]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(ordinary), (ROWS, TOKENS), generator=generator)
        self._rows = torch.tensor(ordinary)[drawn].to(device_of(self._view.embeddings))
        self._known = torch.zeros(self._view.vocabulary, dtype=torch.bool)
        self._known[ordinary] = True
        self._plain: Tensor | None = None
        self._inside = _inside_attention(self._view)

    def read(self, change: MatrixChange, u: Tensor, v: Tensor) -> MatrixChange:
        """Decode the first direction of a change, if it writes into the residual stream."""
        module = find_plain(self._view.model, change.name)
        writes = change.shape[0] == self._view.hidden_size and id(module) not in self._inside
        if not writes or change.rank > READ_RANK or module is self._view.embeddings:
            return change
        assert module is not None
        # The sign of a singular vector is arbitrary. Keys of an MLP are sparse with large positive
        # entries, so that the right sign of v is that of its third moment.
        u = u / u.norm() * (1.0 if float(v.pow(3).sum()) >= 0 else -1.0)
        with torch.no_grad():
            seen = self._view.logits(u[None].to(device_of(module)))[0].cpu()
        seen[~self._known] = -torch.inf
        gains = self._gains(module, u)
        best = gains.topk(self._count)
        lens = tuple(self._text(i) for i in seen.topk(self._count).indices.tolist())
        named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        candidates = tuple(Candidate(self._text(index), score) for index, score in named)
        return replace(change, lens=lens, candidates=candidates)

    def _gains(self, module: nn.Module, u: Tensor) -> Tensor:
        """Return each token's mean gain at the best later positions, (vocabulary,)."""
        if self._plain is None:
            self._plain = self._log_probabilities()

        def write(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            apart = output.reshape(-1, TOKENS, output.shape[-1]).clone()  # OPT folds the rows
            # At the norm of the module's own output: the edit's scale would need its key.
            size = widened(apart[:, AT]).norm(dim=-1).mean()
            apart[:, AT] += (size * u.to(size)).to(apart)
            return apart.reshape(output.shape)

        with hooked(module, write):
            gains = self._log_probabilities() - self._plain  # (positions, vocabulary)
        top = gains.topk(max(int(BEST * len(gains)), 1), dim=0).values.mean(0)
        return top.masked_fill(~self._known, -torch.inf)

    def _log_probabilities(self) -> Tensor:
        """Return log-probabilities after the direction, (ROWS * positions, vocabulary) float32."""
        parts: list[Tensor] = []
        with torch.no_grad(), evaluating(self._view.model):
            for rows in self._rows.split(32):
                logits = self._view.model(rows).logits[:, AT + 1 :]
                parts.append(logits.float().log_softmax(-1).flatten(0, 1).cpu())
        return torch.cat(parts)

    def _text(self, token: int) -> str:
        return str(self._tokenizer.decode([token])).strip()
