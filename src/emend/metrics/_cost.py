"""What a piece of work takes: seconds and peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Cost:
    """What a piece of work took; filled in when it ends.

    Attributes:
        seconds: Wall-clock time.
        peak_memory_bytes: On an accelerator the most it had allocated meanwhile; on a CPU the
            most that the process has had resident so far, other work included. None where the
            system does not say.
    """

    seconds: float = 0.0
    peak_memory_bytes: int | None = None


@contextmanager
def cost_of(model: nn.Module) -> Generator[Cost, None, None]:
    """Measure what happens inside the block on the model's device."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    cost = Cost()
    started = time.perf_counter()
    try:
        yield cost
    finally:
        if on_cuda:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - started
        cost.peak_memory_bytes = (
            torch.cuda.max_memory_allocated(device) if on_cuda else _peak_resident()
        )


def _peak_resident() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
