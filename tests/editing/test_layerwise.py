from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.editing import context_rows, subject_keys
from emend.editing.layerwise import LayerwiseReplay
from emend.edits import Edit
from emend.models import ModelView
from emend.patches import LowRank, WeightPatch

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris"),
    Edit("The mother tongue of {} is", "Tom", "French"),
    Edit("In the year of the great flood {} lived in", "Tom Berg", "Lyon"),
]


def change(view: ModelView, layer: int) -> LowRank:
    generator = torch.Generator().manual_seed(layer)
    return LowRank(
        torch.randn(3, view.intermediate_size(layer), generator=generator),
        torch.randn(view.hidden_size, 3, generator=generator),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_keys_on_rebuilt_layers_are_those_of_the_patched_model(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    texts = [row.ids[: row.lookup + 1] for row in rows]
    stream = LayerwiseReplay(view, texts, 0, 2, batch_size=2)
    factors = {}
    for layer in (0, 1, 2):
        patch = WeightPatch(dict(factors))
        with patch.applied(model):
            expected = subject_keys(view, tokenizer, EDITS, ["{}"], [layer, 2])
        found = stream.read(2)
        assert stream.layer == layer
        assert torch.allclose(found.keys, expected[layer].keys[:, 0], rtol=1e-3, atol=1e-4)
        assert torch.allclose(found.outputs, expected[2].outputs[:, 0], rtol=1e-3, atol=1e-3)
        if layer < 2:
            factors[view.name_of(view.down_projection(layer))] = change(view, layer)
            stream.advance(change(view, layer))


def test_batches_do_not_matter() -> None:
    model, tokenizer = tiny_model("qwen3", dtype=torch.float64)
    view = ModelView(model)
    rows = [row for each in context_rows(tokenizer, EDITS, ["{}", "Yes. {}"]) for row in each]
    texts = [row.ids[: row.lookup + 1] for row in rows]
    one, many = (LayerwiseReplay(view, texts, 1, 2, batch_size=size).read(2) for size in (1, 64))
    assert torch.allclose(one.hidden, many.hidden, rtol=1e-5, atol=1e-6)
    assert one.keys.dtype == torch.float64
