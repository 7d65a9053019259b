"""Published ROME (Meng et al. 2022, arXiv 2202.05262) as one plain loop: the oracle.

Written on torch and transformers alone. Every step runs the whole model over every row and every
position with the full vocabulary, one edit at a time, as the published procedure does; nothing is
cached, nothing is batched over edits. The engine in ``emend.editing`` must agree with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Rows:
    """Right-padded rows of one edit; the last row is "{subject} is a"."""

    input_ids: Tensor  # (R, T) int64
    attention_mask: Tensor  # (R, T) int64
    labels: Tensor  # (R - 1, T) int64, -100 where nothing is scored
    lookup: list[int]  # R positions of the subject's last token
    target_ids: list[int]


@dataclass
class Found:
    """What the search found: all float tensors have shape (width,) unless said otherwise."""

    v_init: Tensor
    v_star: Tensor
    losses: list[float] = field(default_factory=list)


def last_subject_token(tokenizer: Any, text: str, end: int) -> int:
    """Index of the token that holds the character before ``end``."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return max(i for i, (start, stop) in enumerate(offsets) if start < end and stop > start)


def build_rows(
    tokenizer: Any, prompt: str, subject: str, target: str, templates: Sequence[str]
) -> Rows:
    """Tokenise contexts + prompt + target (without its last token) and the row of the KL term."""
    target = target if target.startswith(" ") else " " + target
    target_ids = tokenizer(target, add_special_tokens=False)["input_ids"]
    shown = tokenizer.decode(target_ids[:-1])
    texts, ends = [], []
    for pattern in [t.replace("{}", prompt) for t in templates] + ["{} is a"]:
        begin = pattern.index("{}")
        texts.append(pattern.replace("{}", subject))
        ends.append(begin + len(subject))
    lookup = [
        last_subject_token(tokenizer, text, end) for text, end in zip(texts, ends, strict=True)
    ]
    texts = [text + shown for text in texts[:-1]] + texts[-1:]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    length = max(map(len, ids))
    input_ids = torch.zeros(len(ids), length, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    labels = torch.full((len(ids) - 1, length), -100)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        if row < len(ids) - 1:
            labels[row, len(tokens) - len(target_ids) : len(tokens)] = torch.tensor(target_ids)
    return Rows(input_ids, mask, labels, lookup, target_ids)


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Keep a forward hook on ``module`` while the block runs."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def search_value(
    model: nn.Module,
    site: nn.Module,
    rows: Rows,
    *,
    steps: int = 20,
    learning_rate: float = 0.5,
    weight_decay: float = 0.5,
    clamp: float = 4.0,
    kl_factor: float = 0.0625,
    stop_below: float = 5e-2,
) -> Found:
    """Search v* for one edit; ``site`` is the module at whose output delta is added."""
    width = model.get_input_embeddings().weight.shape[1]
    wide = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
    delta = torch.zeros(width, dtype=wide, requires_grad=True)
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    optimizer = torch.optim.Adam([delta], lr=learning_rate)
    state: dict[str, Tensor] = {}
    # Pads are at the right, where no token sees them. Masked, they would see nothing themselves
    # in a sliding window, and their attention would be no number.
    seen = torch.ones_like(rows.attention_mask)

    def add_delta(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if "v_init" not in state:
            first = output.reshape(-1, width)[rows.lookup[0]]  # lies in row 0
            state["v_init"] = first.detach().clone().to(wide)
        shape = output.shape
        output = output.clone().reshape(*rows.input_ids.shape, -1)  # OPT folds rows and tokens
        for row, position in enumerate(rows.lookup):
            output[row, position] += delta.to(output.dtype)
        return output.reshape(shape)

    contexts = len(rows.labels)
    kept = torch.where(rows.labels != -100, rows.labels, 0)
    scored = (rows.labels != -100).to(wide)
    losses: list[float] = []
    for step in range(steps):
        optimizer.zero_grad()
        with hooked(site, add_delta):
            logits = model(input_ids=rows.input_ids, attention_mask=seen).logits
        is_a = torch.log_softmax(logits[-1, rows.lookup[-1]].to(wide), dim=-1)
        if "initial" not in state:
            state["initial"] = is_a.detach().clone()
        log_probs = torch.log_softmax(logits[:contexts].to(wide), dim=2)
        picked = torch.gather(log_probs, 2, kept.unsqueeze(2)).squeeze(2)
        nll = (-(picked * scored).sum(1) / len(rows.target_ids)).mean()
        # KL(current || initial), as the published code has it.
        kl = F.kl_div(state["initial"], is_a, log_target=True, reduction="sum")
        decay = torch.norm(delta) / torch.norm(state["v_init"]) ** 2
        loss = nll + kl_factor * kl + weight_decay * decay
        losses.append(loss.item())
        if loss.item() < stop_below or step == steps - 1:
            break
        loss.backward()
        optimizer.step()
        limit = clamp * state["v_init"].norm()
        if delta.norm() > limit:
            with torch.no_grad():
                delta[...] = delta * limit / delta.norm()
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    return Found(state["v_init"], state["v_init"] + delta.detach(), losses)


def key_at_subject(
    model: nn.Module, site: nn.Module, tokenizer: Any, pattern: str, subject: str
) -> tuple[Tensor, Tensor]:
    """Input (inner,) and output (width,) of ``site`` at the subject's last token of one text."""
    end = pattern.index("{}") + len(subject)
    text = pattern.replace("{}", subject)
    position = last_subject_token(tokenizer, text, end)
    seen: dict[str, Tensor] = {}

    def look(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["key"] = inputs[0].flatten(0, -2)[position]
        seen["value"] = output.flatten(0, -2)[position]

    with torch.no_grad(), hooked(site, look):
        model(**tokenizer(text, return_tensors="pt"))
    return seen["key"], seen["value"]


def second_moment(
    model: nn.Module, site: nn.Module, tokenizer: Any, texts: Sequence[str]
) -> Tensor:
    """Uncentred second moment of the inputs of ``site`` over all tokens of ``texts``: (m, m)."""
    total, count = torch.zeros(()), 0

    def add(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        nonlocal total, count
        keys = inputs[0].flatten(0, -2).float()
        total, count = total + keys.T @ keys, count + len(keys)

    with torch.no_grad(), hooked(site, add):
        for text in texts:
            model(**tokenizer(text, return_tensors="pt"))
    return total / count


def rank_one(
    key: Tensor, moment: Tensor | None, v_star: Tensor, bare_key: Tensor, bare_value: Tensor
) -> tuple[Tensor, Tensor]:
    """Published update: u (inner,) and v (width,) with change = v u^T on the (out, in) matrix."""
    direction = key if moment is None else torch.linalg.inv(moment) @ key
    u = direction / direction.norm()
    return u, (v_star - bare_value) / torch.dot(bare_key, u)
