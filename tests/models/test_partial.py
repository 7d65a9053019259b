from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.models.partial import capture_blocks
from emend.models.view import ModelView

CASES: list[tuple[str, dict[str, object]]] = [(name, {}) for name in ARCHITECTURES]


def make_rows(vocabulary: int, seed: int = 0) -> tuple[list[list[int]], list[int]]:
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> list[int]:
        return torch.randint(4, vocabulary, (length,), generator=generator).tolist()

    return [draw(n) for n in (9, 14, 6, 11, 7)], [3, 8, 0, 10, 2]


def full_hidden(model, site, last, ids, start, delta):
    """Last block's output of one unpadded row by an ordinary forward, delta added at `start`."""
    seen = {}

    def add(_module, _args, output):
        flat = output.reshape(-1, output.shape[-1]).clone()
        flat[start] += delta
        return flat.reshape(output.shape)

    def keep(_module, _args, output):
        seen["last"] = output if isinstance(output, torch.Tensor) else output[0]

    handles = [site.register_forward_hook(add), last.register_forward_hook(keep)]
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen["last"][0, start:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize(("name", "overrides"), CASES, ids=[case[0] for case in CASES])
def test_partial_is_full(name, overrides, layer, dtype):
    model, _ = tiny_model(name, dtype=dtype, **overrides)
    view = ModelView(model)
    rows, starts = make_rows(view.vocabulary)
    capture = capture_blocks(view, rows, starts, layer)
    assert capture.reuses_prefix
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(len(rows), view.width, generator=generator).to(dtype)
    with torch.no_grad():
        found = capture.run(delta)
    # These compute the softmax or all of attention in float32 whatever the model's dtype.
    exact = 1e-6 if name in ("gptj", "gpt_neo", "bloom", "gemma2") else 1e-9
    tolerance = 1e-5 if dtype == torch.float32 else exact
    site, last = view.down_projection(layer), view.blocks[-1]
    for index, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        expected = full_hidden(model, site, last, ids, start, delta[index])
        at = int(capture.at[index])
        error = (found[index, at : at + len(expected)] - expected).norm() / expected.norm()
        assert error < tolerance
