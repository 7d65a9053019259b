"""PMET's search as a plain loop: two deltas, whole forward passes, one edit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tests.reference.rome import Rows, hooked
from torch import Tensor, nn


def search_value(
    model: nn.Module,
    attention: nn.Module,
    down: nn.Module,
    rows: Rows,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    clamp: float,
    kl_factor: float,
    easing: float = 0.1,
    stop_kl: float = 0.01,
    stop_below: float = 5e-2,
) -> Tensor:
    """What the down-projection should put out, (width,)."""
    width = model.get_input_embeddings().weight.shape[1]
    wide = next(model.parameters()).dtype
    deltas = [torch.zeros(width, dtype=wide, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.Adam(deltas, lr=learning_rate)
    initial: dict[str, Tensor] = {}

    def adding(name: str, delta: Tensor) -> Any:
        def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            hidden = output if isinstance(output, Tensor) else output[0]
            initial.setdefault(name, hidden[0, rows.lookup[0]].detach().clone())
            hidden = hidden.clone()
            for row, position in enumerate(rows.lookup):
                hidden[row, position] += delta
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        return add

    contexts = len(rows.labels)
    scored = rows.labels != -100
    kept = torch.where(scored, rows.labels, 0)
    for step in range(steps):
        optimizer.zero_grad()
        with (
            hooked(attention, adding("attention", deltas[0])),
            hooked(down, adding("mlp", deltas[1])),
        ):
            logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
        essence = logits[-1, rows.lookup[-1]].log_softmax(-1)
        initial.setdefault("essence", essence.detach().clone())
        log_probs = logits[:contexts].log_softmax(2)
        picked = log_probs.gather(2, kept[..., None])[..., 0]
        nll = (-(picked * scored).sum(1) / len(rows.target_ids)).mean()
        hit = bool((log_probs.argmax(2) == kept)[scored].all())
        kl = F.kl_div(initial["essence"], essence, log_target=True, reduction="sum")
        bases = initial["attention"], initial["mlp"]
        decay = sum(d.norm() / b.norm() ** 2 for d, b in zip(deltas, bases, strict=True))
        loss = nll * (easing if hit else 1.0) + kl_factor * kl + weight_decay * decay
        if loss < stop_below or (hit and kl <= stop_kl) or step == steps - 1:
            break
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for delta, base in zip(deltas, bases, strict=True):
                limit = clamp * base.norm()
                if delta.norm() > limit:
                    delta *= limit / delta.norm()
    return initial["mlp"] + deltas[1].detach()
