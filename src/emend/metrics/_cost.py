"""What a piece of work takes: seconds and peak memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from emend.models.placing import devices_of


@dataclass
class Cost:
    """What a piece of work took; filled in when it ends.

    Attributes:
        seconds: Wall-clock time.
        peak_memory_bytes: On an accelerator the most it had allocated meanwhile, and on several
            the sum of that; on a CPU the most that the process has had resident so far, other
            work included. None where the system does not say.
    """

    seconds: float = 0.0
    peak_memory_bytes: int | None = None


@contextmanager
def cost_of(model: nn.Module) -> Generator[Cost, None, None]:
    """Measure what happens inside the block on all devices that the model computes on."""
    accelerators = [device for device in devices_of(model) if device.type == "cuda"]
    for device in accelerators:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    cost = Cost()
    started = time.perf_counter()
    try:
        yield cost
    finally:
        for device in accelerators:
            torch.cuda.synchronize(device)
        cost.seconds = time.perf_counter() - started
        peaks = [torch.cuda.max_memory_allocated(device) for device in accelerators]
        cost.peak_memory_bytes = sum(peaks) if peaks else _peak_resident()


def _peak_resident() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
