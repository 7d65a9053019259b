"""Published closed-form batch editors as plain loops: the oracle for MEMIT, EMMET and AlphaEdit.

Written on torch and transformers alone, in float64: a copy of the model is changed in place layer
by layer, every key and every output is read by one whole forward pass of one text, matrices are
inverted outright, and nothing is solved on a smaller side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tests.reference.rome import hooked, last_subject_token
from torch import Tensor, nn

Fact = tuple[str, str]
"""(prompt with one "{}", subject)."""


@dataclass(frozen=True)
class Places:
    """Where a model keeps its blocks and their down-projections."""

    block: Callable[[nn.Module, int], nn.Module]
    down: Callable[[nn.Module, int], nn.Module]
    transposed: bool


GPT2 = Places(lambda m, n: m.transformer.h[n], lambda m, n: m.transformer.h[n].mlp.c_proj, True)
LLAMA = Places(lambda m, n: m.model.layers[n], lambda m, n: m.model.layers[n].mlp.down_proj, False)


def read(
    model: nn.Module, tokenizer: Any, module: nn.Module, template: str, fact: Fact
) -> tuple[Tensor, Tensor]:
    """Input and output of a module at the subject's last token of one text, float64."""
    pattern = template.replace("{}", fact[0])
    end = pattern.index("{}") + len(fact[1])
    text = pattern.replace("{}", fact[1])
    position = last_subject_token(tokenizer, text, end)
    seen: list[Tensor] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        output = output if isinstance(output, Tensor) else output[0]
        given = inputs[0] if inputs else output
        seen.extend([given[0, position].double(), output[0, position].double()])

    with torch.no_grad(), hooked(module, look):
        model(**tokenizer(text, return_tensors="pt"))
    return seen[0], seen[1]


def moment(model: nn.Module, tokenizer: Any, module: nn.Module, texts: Sequence[str]) -> Tensor:
    """E[k k^T] over all tokens of the texts, float64."""
    keys: list[Tensor] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Any) -> None:
        keys.append(inputs[0][0].double())

    with torch.no_grad(), hooked(module, look):
        for text in texts:
            model(**tokenizer(text, return_tensors="pt"))
    every = torch.cat(keys)
    return every.T @ every / len(every)


def with_ridge(matrix: Tensor, ridge: float) -> Tensor:
    """C + ridge tr(C) / m I."""
    return matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)


def memit_update(keys: Tensor, residuals: Tensor, prior: Tensor, weight: float) -> Tensor:
    """R K^T (lambda C + K K^T)^-1; keys (m, E), residuals (d, E)."""
    return residuals @ keys.T @ torch.linalg.inv(weight * prior + keys @ keys.T)


def emmet_update(keys: Tensor, residuals: Tensor, prior: Tensor, weight: float) -> Tensor:
    """R (K^T C^-1 K + lambda I)^-1 K^T C^-1."""
    inverse = torch.linalg.inv(prior)
    gram = keys.T @ inverse @ keys + weight * torch.eye(keys.shape[1], dtype=keys.dtype)
    return residuals @ torch.linalg.inv(gram) @ keys.T @ inverse


def projection(prior: Tensor, threshold: float) -> Tensor:
    """U U^T of the singular vectors of C below a threshold."""
    u, s, _ = torch.linalg.svd(prior)
    return u[:, s < threshold] @ u[:, s < threshold].T


def alphaedit_update(keys: Tensor, residuals: Tensor, free: Tensor, weight: float) -> Tensor:
    """The transpose of (P K K^T + lambda I)^-1 P K R^T, as the authors' code has it."""
    matrix = free @ keys @ keys.T + weight * torch.eye(len(keys), dtype=keys.dtype)
    return (torch.linalg.inv(matrix) @ free @ keys @ residuals.T).T


def spread(
    model: nn.Module,
    tokenizer: Any,
    facts: Sequence[Fact],
    wanted: Tensor,
    templates: Sequence[str],
    layers: Sequence[int],
    places: Places,
    update: Callable[[int, Tensor, Tensor], Tensor],
    *,
    at_down: bool = False,
    power: float = 1.0,
) -> dict[int, Tensor]:
    """MEMIT's loop over layers: update takes (layer, keys (m, E), residuals (d, E)).

    PMET reads residuals at the last layer's down-projection (``at_down``), and divides them by
    the root of the number of layers left (``power`` 0.5).
    """
    model = copy.deepcopy(model).double()
    changes: dict[int, Tensor] = {}
    for number, layer in enumerate(layers):
        down = places.down(model, layer)
        block = (places.down if at_down else places.block)(model, layers[-1])
        keys: list[Tensor] = []
        residuals: list[Tensor] = []
        for fact, target in zip(facts, wanted, strict=True):
            bare = read(model, tokenizer, down, templates[0], fact)[0]
            others = [read(model, tokenizer, down, t, fact)[0] for t in templates[1:]]
            keys.append(bare / 2 + sum(others) / (2 * len(others)))
            reached = read(model, tokenizer, block, templates[0], fact)[1]
            residuals.append((target.double() - reached) / (len(layers) - number) ** power)
        change = update(layer, torch.stack(keys, 1), torch.stack(residuals, 1))
        with torch.no_grad():
            down.weight += change.T if places.transposed else change
        changes[layer] = change
    return changes
