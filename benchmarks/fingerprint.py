"""What it costs to know a model by its content: all weights hashed, hashed again, one changed.

    python benchmarks/fingerprint.py [MODEL ...]

A model is whatever `emend.load` takes; by default a random one of GPT-2 small's shape.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from _shapes import small_model

import emend
from emend._identity import tokenizer_fingerprint
from emend.models import model_fingerprint
from emend.models.placing import stored_weights


def cost(call: Callable[[Any], str], given: Any) -> str:
    """CPU time of this process."""
    begun = time.process_time()
    call(given)
    return f"{1000 * (time.process_time() - begun):.1f} ms"


def measure(name: str, model: Any) -> None:
    size = sum(weight.nbytes for _, weight in stored_weights(model)) / 1e6
    first, again = (cost(model_fingerprint, model) for _ in range(2))
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    changed = cost(model_fingerprint, model)
    print(f"{name}, {size:.0f} MB: first {first}, again {again}, first weight changed {changed}")


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        model, tokenizer = emend.load(name)
        measure(name, model)
        first, again = (
            cost(tokenizer_fingerprint, tokenizer),
            cost(tokenizer_fingerprint, tokenizer),
        )
        print(f"  its tokenizer: first {first}, again {again}")
    if not sys.argv[1:]:
        measure("random", small_model())


if __name__ == "__main__":
    main()
