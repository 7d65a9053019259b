"""Estimate peak memory up front and fail early."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emend.editing.jobs import TOKENS as OPTIMISED
from emend.edits import Edit
from emend.edits.joining import joined
from emend.errors import NotEnoughMemory
from emend.models import ModelView

FLOAT32, FLOAT64 = 4, 8

CONTEXT_TOKENS = 12
"""Most tokens of a context template sampled by default."""

SAMPLED = 64
"""Edits whose length is measured."""


@dataclass(frozen=True)
class CovarianceEstimate:
    """Memory and disk that collecting key covariances takes, in bytes.

    Attributes:
        sums: The sums of all layers.
        activations: The largest tensors alive at once while a batch runs.
        disk: The key covariances on disk, and as much again for checkpoints.
    """

    sums: int
    activations: int
    disk: int

    @property
    def memory(self) -> int:
        """Peak memory besides the model."""
        return self.sums + self.activations


@dataclass(frozen=True)
class EditEstimate:
    """Memory that an edit by a closed-form method takes besides the model, in bytes.

    Attributes:
        metric: A layer's key covariance, its float64 copy and factor; one layer at a time.
        keys: Keys and residuals of all edits in float64, whitened keys, and the Gram matrix.
        stream: Hidden states that enter the first edited layer, at every token of all rows.
        changes: The factors of the patch, or its dense changes, whichever is smaller.
        activations: One batch in one layer.
        search: One chunk of the value optimisation, with activations for the backward pass.
    """

    metric: int
    keys: int
    stream: int
    changes: int
    activations: int
    search: int

    @property
    def memory(self) -> int:
        """Peak memory: values are optimised before they are written."""
        writing = self.metric + self.keys + self.stream + self.changes + self.activations
        return max(self.search, writing)


def estimate_covariance(
    view: ModelView, layers: Sequence[int], dtype: torch.dtype, tokens: int
) -> CovarianceEstimate:
    """Estimate what `collect_covariance` takes.

    Args:
        view: The model.
        layers: The layers.
        dtype: Dtype of the sums.
        tokens: Tokens in one pass.
    """
    sizes = [view.intermediate_size(layer) for layer in view.numbered(layers)]
    sums = sum(size * size for size in sizes) * dtype.itemsize
    largest = max(sizes, default=0)
    # A panel of at most a sixteenth (or 256 rows) before it is added, and float32 keys.
    panel = largest * max(256, -(-largest // 16)) * FLOAT64
    keys = tokens * largest * FLOAT32
    return CovarianceEstimate(sums, _block(view, largest, tokens) + panel + keys, 2 * sums)


def estimate_edit(
    view: ModelView,
    edits: int,
    contexts: int,
    layers: Sequence[int],
    *,
    tokens: int = 24,
    batch_size: int = 64,
    chunk: int = 1,
) -> EditEstimate:
    """Estimate what ROME, EMMET, MEMIT, PMET or AlphaEdit takes, to a factor of about two.

    Args:
        view: The model.
        edits: Number of edits.
        contexts: Number of context templates.
        layers: The edited layers.
        tokens: Mean tokens of a row (context, prompt and target).
        batch_size: Rows in one pass of the keys.
        chunk: Edits optimised together.
    """
    layers = view.numbered(layers)
    inner = max(view.intermediate_size(layer) for layer in layers)
    item = _itemsize(view)
    rows = edits * contexts
    low_rank = edits * (inner + view.hidden_size) * FLOAT32
    dense = inner * view.hidden_size * FLOAT64
    one = (contexts + 1) * tokens  # at most: tokens before the subject are not run
    searched = min(min(edits, chunk) * one, max(one, OPTIMISED))
    above = view.num_layers - min(layers)
    return EditEstimate(
        metric=inner * inner * (FLOAT32 + 2 * FLOAT64),
        keys=edits * (3 * inner + 2 * view.hidden_size) * FLOAT64
        + rows * inner * FLOAT32
        + 2 * min(edits, inner) ** 2 * FLOAT64,
        stream=rows * tokens * view.hidden_size * item,
        changes=len(layers) * min(low_rank, dense),
        activations=_block(view, inner, min(rows, batch_size) * tokens),
        # For the backward pass: about what a layer holds at once, in each layer above.
        search=above * _block(view, inner, searched)
        + searched // tokens * view.vocabulary * 3 * FLOAT32,
    )


def check_edit(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    contexts: int,
    layers: Sequence[int],
) -> None:
    """Refuse an edit by a closed-form method that does not fit, before any work.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: All edits that will be written.
        contexts: Number of context templates.
        layers: The edited layers.

    Raises:
        NotEnoughMemory: More is needed than is free on the first layer's device.
    """
    some = edits[:: max(len(edits) // SAMPLED, 1)]
    lengths = [len(tokenizer(joined(edit.text, edit.target))["input_ids"]) for edit in some]
    tokens = round(sum(lengths) / len(lengths)) + (CONTEXT_TOKENS if contexts > 1 else 0)
    needed = estimate_edit(view, len(edits), contexts, layers, tokens=tokens)
    what = f"writing {len(edits)} edits in {contexts} contexts" if len(edits) > 1 else "the edit"
    remedy = "give fewer edits or templates at once, or free memory"
    check_fits(needed.memory, what, remedy, view.device(layers[0]))


def available(device: torch.device | str = "cpu") -> int | None:
    """Return the free bytes of a device: of a CPU, what the machine and its control group leave.

    Returns:
        None where it is unknown.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + reserved)
    if device.type != "cpu":
        return None
    found = [free for free in (_free_of_machine(), _free_of_group()) if free is not None]
    return min(found) if found else None


def check_fits(needed: int, what: str, remedy: str, device: torch.device | str = "cpu") -> None:
    """Refuse a run that does not fit, before it begins.

    Args:
        needed: Bytes.
        what: Name of what needs them.
        remedy: What the user can do.
        device: The device.

    Raises:
        NotEnoughMemory: More is needed than is free.
    """
    free = available(device)
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"{what} will take {readable(needed)} of memory, and {readable(free)} are free on "
            f"{torch.device(device)}: {remedy}"
        )


def readable(count: int) -> str:
    """Format a number of bytes, e.g. "1.2 GB"."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _block(view: ModelView, inner: int, tokens: int) -> int:
    """Estimate what a layer holds: hidden states, attention, and the MLP's inner activations."""
    return tokens * (4 * inner + 8 * view.hidden_size) * _itemsize(view)


def _itemsize(view: ModelView) -> int:
    return next(view.model.parameters()).element_size()


def _free_of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_bytes().splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _free_of_group(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what the control group (a container's, a job's) leaves; cached files are free."""
    try:
        limit = (group / "memory.max").read_bytes().strip()
        used = int((group / "memory.current").read_bytes())
        counts = dict(line.split() for line in (group / "memory.stat").read_bytes().splitlines())
        return None if limit == b"max" else int(limit) - used + int(counts.get(b"inactive_file", 0))
    except (OSError, ValueError):
        return None
