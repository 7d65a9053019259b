"""How much memory there is, and how much a run will take: asked before it, not found out in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emend.editing.jobs import TOKENS as SOUGHT
from emend.edits import Edit
from emend.edits.joining import joined
from emend.errors import NotEnoughMemory
from emend.models import ModelView

FLOAT32, FLOAT64 = 4, 8

CONTEXT_TOKENS = 12
"""Tokens of a context template, at most, where they are sampled by default."""

SAMPLED = 64
"""Edits whose length is looked at."""


@dataclass(frozen=True)
class CovarianceEstimate:
    """What collecting key covariances will take, in bytes.

    Attributes:
        sums: The sums of all layers.
        activations: The largest tensors that are alive at once while a batch runs.
        disk: The key covariances on disk, and as much again while the run goes on.
    """

    sums: int
    activations: int
    disk: int

    @property
    def memory(self) -> int:
        """All that is in memory at once, beside the model."""
        return self.sums + self.activations


@dataclass(frozen=True)
class EditEstimate:
    """What an edit by a closed-form method will take beside the model, in bytes.

    Attributes:
        metric: A layer's key covariance, its float64 copy and factor; one layer at a time.
        keys: Keys and residuals of all edits in float64, whitened keys, and the Gram matrix.
        stream: The stream entering the first edited block at every token, kept for all rows.
        changes: The factors of the patch, or its dense changes, whichever is smaller.
        activations: One batch on its way through a block.
        search: One chunk of the value search with what is kept for the way back.
    """

    metric: int
    keys: int
    stream: int
    changes: int
    activations: int
    search: int

    @property
    def memory(self) -> int:
        """The most that is alive at once: values are optimised before they are written."""
        writing = self.metric + self.keys + self.stream + self.changes + self.activations
        return max(self.search, writing)


def estimate_covariance(
    view: ModelView, layers: Sequence[int], dtype: torch.dtype, tokens: int
) -> CovarianceEstimate:
    """What `collect_covariance` will take.

    Args:
        view: The model.
        layers: Blocks whose keys are wanted.
        dtype: Of the sums.
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
    """What an edit by ROME, EMMET, MEMIT, PMET or AlphaEdit will take, to a factor of about two.

    Args:
        view: The model.
        edits: Number of edits.
        contexts: Number of context templates.
        layers: The edited layers.
        tokens: Mean tokens of a row (context, prompt and target).
        batch_size: Rows in one pass of the keys.
        chunk: Edits that are sought together.
    """
    layers = view.numbered(layers)
    inner = max(view.intermediate_size(layer) for layer in layers)
    item = _itemsize(view)
    rows = edits * contexts
    low_rank = edits * (inner + view.hidden_size) * FLOAT32
    dense = inner * view.hidden_size * FLOAT64
    one = (contexts + 1) * tokens  # at most: tokens before the subject are not run
    searched = min(min(edits, chunk) * one, max(one, SOUGHT))
    above = view.num_layers - min(layers)
    return EditEstimate(
        metric=inner * inner * (FLOAT32 + 2 * FLOAT64),
        keys=edits * (3 * inner + 2 * view.hidden_size) * FLOAT64
        + rows * inner * FLOAT32
        + 2 * min(edits, inner) ** 2 * FLOAT64,
        stream=rows * tokens * view.hidden_size * item,
        changes=len(layers) * min(low_rank, dense),
        activations=_block(view, inner, min(rows, batch_size) * tokens),
        # Kept for the way back: about what a block holds at once, in each block above the layer.
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
    """Refuse an edit by a closed-form method that will not fit, before any work.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: All edits that will be written.
        contexts: Number of context templates.
        layers: The edited layers.

    Raises:
        NotEnoughMemory: More is needed than is free where the first of the layers computes.
    """
    some = edits[:: max(len(edits) // SAMPLED, 1)]
    lengths = [len(tokenizer(joined(edit.text, edit.target))["input_ids"]) for edit in some]
    tokens = round(sum(lengths) / len(lengths)) + (CONTEXT_TOKENS if contexts > 1 else 0)
    needed = estimate_edit(view, len(edits), contexts, layers, tokens=tokens)
    what = f"writing {len(edits)} edits in {contexts} contexts" if len(edits) > 1 else "the edit"
    remedy = "give fewer edits or templates at once, or free memory"
    check_fits(needed.memory, what, remedy, view.device(layers[0]))


def available(device: torch.device | str = "cpu") -> int | None:
    """Bytes that are free on a device: of a CPU, what the machine and its control group leave.

    Returns:
        None where it cannot be known.
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
    """Refuse a run that will not fit, before it begins.

    Args:
        needed: Bytes.
        what: What needs them.
        remedy: What the user can do.
        device: Where.

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
    """A number of bytes as people read it, e.g. "1.2 GB"."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _block(view: ModelView, inner: int, tokens: int) -> int:
    """What a block holds at once: the stream, its attention, and the MLP between projections."""
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
    """What the control group (a container's, a job's) leaves; cached files count as free."""
    try:
        limit = (group / "memory.max").read_bytes().strip()
        used = int((group / "memory.current").read_bytes())
        counts = dict(line.split() for line in (group / "memory.stat").read_bytes().splitlines())
        return None if limit == b"max" else int(limit) - used + int(counts.get(b"inactive_file", 0))
    except (OSError, ValueError):
        return None
