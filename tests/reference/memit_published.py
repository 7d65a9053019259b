"""MEMIT and AlphaEdit at the published code's cost, for `benchmarks/edit_speed.py`.

Meng et al. 2022, arXiv 2210.07229; Fang et al. 2025, arXiv 2410.02355. Written on torch and
transformers alone, in the model's own dtype. Every step of a search runs the whole model over every
row and every position, and computes the vocabulary twice: once by the model's own head, for the
KL term, and once from the last block's output, for the target. Keys and residuals are read by whole
passes, and each layer is solved by one inner x inner system in float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from tests.reference.closed_form import Places
from tests.reference.rome import Found, Rows, build_rows, hooked
from torch import Tensor, nn

Fact = tuple[str, str, str]
"""(prompt with one "{}", subject, target)."""

Update = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, keys (inner, E), residuals (width, E)), both float64 -> change (width, inner)."""


@dataclass
class Seconds:
    """CPU seconds of each part."""

    search: float = 0.0
    keys: float = 0.0
    residuals: float = 0.0
    solve: float = 0.0

    @property
    def total(self) -> float:
        """All parts."""
        return self.search + self.keys + self.residuals + self.solve

    @contextmanager
    def of(self, part: str) -> Generator[None, None, None]:
        """Count what the block takes to a part."""
        start = time.process_time()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.process_time() - start)


@dataclass
class Built:
    """Values z (E, width), the change of each layer (width, inner), and what it took."""

    values: Tensor
    changes: dict[int, Tensor] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)


def search_value(
    model: nn.Module,
    block: nn.Module,
    last: nn.Module,
    norm: nn.Module,
    rows: Rows,
    *,
    steps: int = 25,
    learning_rate: float = 0.5,
    weight_decay: float = 0.5,
    clamp: float = 0.75,
    kl_factor: float = 0.0625,
    stop_below: float = 5e-2,
) -> Found:
    """Search z for one edit: delta is added to what ``block`` puts out at the subject.

    ``last`` is the last block and ``norm`` what stands between it and the head.
    """
    head: nn.Linear = model.get_output_embeddings()  # type: ignore[operator]
    delta = torch.zeros(head.weight.shape[1], requires_grad=True)
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    optimizer = torch.optim.Adam([delta], lr=learning_rate)
    state: dict[str, Tensor] = {}

    def add_delta(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        if "z_init" not in state:
            state["z_init"] = hidden[0, rows.lookup[0]].detach().clone()
        hidden = hidden.clone()
        for row, position in enumerate(rows.lookup):
            hidden[row, position] += delta
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        state["last"] = output if isinstance(output, Tensor) else output[0]

    contexts = len(rows.labels)
    kept = torch.where(rows.labels != -100, rows.labels, 0)
    scored = (rows.labels != -100).float()
    losses: list[float] = []
    for step in range(steps):
        optimizer.zero_grad()
        with hooked(block, add_delta), hooked(last, keep):
            logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
        is_a = torch.log_softmax(logits[-1, rows.lookup[-1]], dim=-1)
        if "initial" not in state:
            state["initial"] = is_a.detach().clone()
        log_probs = torch.log_softmax(norm(state["last"][:contexts]) @ head.weight.T, dim=2)
        picked = torch.gather(log_probs, 2, kept.unsqueeze(2)).squeeze(2)
        nll = (-(picked * scored).sum(1) / len(rows.target_ids)).mean()
        kl = F.kl_div(state["initial"], is_a, log_target=True, reduction="sum")
        decay = torch.norm(delta) / torch.norm(state["z_init"]) ** 2
        loss = nll + kl_factor * kl + weight_decay * decay
        losses.append(loss.item())
        if loss.item() < stop_below or step == steps - 1:
            break
        loss.backward()
        optimizer.step()
        limit = clamp * state["z_init"].norm()
        if delta.norm() > limit:
            with torch.no_grad():
                delta[...] = delta * limit / delta.norm()
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    return Found(state["z_init"], state["z_init"] + delta.detach(), losses)


def build(
    model: nn.Module,
    tokenizer: Any,
    facts: Sequence[Fact],
    templates: Sequence[str],
    layers: Sequence[int],
    places: Places,
    norm: nn.Module,
    updates: dict[str, Update],
    *,
    depth: int,
    **settings: Any,
) -> dict[str, Built]:
    """Seek all values once, then write them by each of some updates; the model is put back."""
    block, last = places.block(model, layers[-1]), places.block(model, depth - 1)
    prepared = [build_rows(tokenizer, *fact, templates) for fact in facts]
    seconds = Seconds()
    with seconds.of("search"):
        found = [search_value(model, block, last, norm, rows, **settings) for rows in prepared]
    values = torch.stack([each.v_star for each in found])
    return {
        name: _write(model, values, prepared, layers, places, update, seconds.search)
        for name, update in updates.items()
    }


def _write(
    model: nn.Module,
    values: Tensor,
    prepared: Sequence[Rows],
    layers: Sequence[int],
    places: Places,
    update: Update,
    search: float,
) -> Built:
    """The loop over layers, each on the weights that the ones before it left."""
    built = Built(values, seconds=Seconds(search=search))
    seconds, kept = built.seconds, {n: places.down(model, n).weight.clone() for n in layers}
    block = places.block(model, layers[-1])
    for number, layer in enumerate(layers):
        down = places.down(model, layer)
        with seconds.of("keys"):
            keys = torch.stack([_key(model, down, rows) for rows in prepared], 1).double()
        with seconds.of("residuals"):
            reached = torch.stack([_reached(model, block, rows) for rows in prepared])
            residuals = (values - reached).T.double() / (len(layers) - number)
        with seconds.of("solve"), torch.no_grad():
            change = update(layer, keys, residuals)
            built.changes[layer] = change
            down.weight += (change.T if places.transposed else change).to(down.weight)
    with torch.no_grad():
        for layer in layers:
            places.down(model, layer).weight.copy_(kept[layer])
    return built


def _key(model: nn.Module, down: nn.Module, rows: Rows) -> Tensor:
    """The key over all contexts: half from the bare prompt, half the mean of the others."""
    given = _whole_pass(model, down, rows, slice(0, len(rows.labels)), of_input=True)
    return given[0] / 2 + given[1:].mean(0) / 2


def _reached(model: nn.Module, block: nn.Module, rows: Rows) -> Tensor:
    """What the last edited block puts out in the bare prompt."""
    return _whole_pass(model, block, rows, slice(0, 1), of_input=False)[0]


def _whole_pass(
    model: nn.Module, module: nn.Module, rows: Rows, chosen: slice, *, of_input: bool
) -> Tensor:
    """(R, features) at the subject's last token, from a pass of the whole model."""
    seen: list[Tensor] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        seen.append(inputs[0] if of_input else output if isinstance(output, Tensor) else output[0])

    mask = rows.attention_mask[chosen]
    length = int(mask.sum(1).max())
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(hooked(module, look))
        model(input_ids=rows.input_ids[chosen, :length], attention_mask=mask[:, :length])
    return seen[0][torch.arange(len(mask)), torch.tensor(rows.lookup[chosen])].clone()


def memit_update(moments: dict[int, Tensor], weight: float) -> Update:
    """R K^T (lambda C + K K^T)^-1, by one solution of the whole system."""

    def update(layer: int, keys: Tensor, residuals: Tensor) -> Tensor:
        matrix = weight * moments[layer].double() + keys @ keys.T
        return residuals @ torch.linalg.solve(matrix, keys).T

    return update


def alphaedit_update(free: dict[int, Tensor], weights: dict[int, float]) -> Update:
    """The transpose of (P K K^T + lambda I)^-1 P K R^T, by one solution of the whole system."""

    def update(layer: int, keys: Tensor, residuals: Tensor) -> Tensor:
        projector = free[layer].double()
        matrix = projector @ (keys @ keys.T)
        matrix.diagonal().add_(weights[layer])
        return torch.linalg.solve(matrix, projector @ keys @ residuals.T).T

    return update
