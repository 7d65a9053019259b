from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import (
    EDITS,
    FACTS,
    PLACES,
    SORTED,
    TEMPLATES,
    TEXT,
    difference,
    relative,
    tiny_model,
)
from tests.reference import closed_form as reference
from tests.reference import pmet as plain
from tests.reference import rome

from emend.methods import registry
from emend.models import ModelView

LAYERS = (0, 1, 2)
SEARCH = {
    "steps": 6,
    "learning_rate": 0.1,
    "weight_decay": 0.5,
    "kl_factor": 1.0,
    "clamp": 0.75,
}
RIDGE = 1e-2  # a smaller one magnifies how second moments round, in float32
COMMON = {
    "ridge": RIDGE,
    "templates": TEMPLATES,
    "texts": TEXT,
    "cache": False,
    "weight": 20.0,
    **SEARCH,
}


def wanted(model, tokenizer, layer: int) -> torch.Tensor:
    view = ModelView(model)
    sites = view.attention(layer), view.down_projection(layer)
    found = []
    for edit in SORTED:
        rows = rome.build_rows(tokenizer, edit.prompt, edit.subject, edit.target, TEMPLATES)
        found.append(plain.search_value(model, *sites, rows, **SEARCH))
    return torch.stack(found)


@pytest.mark.parametrize("scale", [1.0, 12.0], ids=["flat", "sharp"])  # sharp logits ease and stop
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_is_the_plain_loop(architecture, scale) -> None:
    model, tokenizer = tiny_model(architecture, scale=scale)
    model = model.double()  # Adam magnifies how small gradients round
    places = PLACES[architecture]
    patch = registry().get("pmet").edit(model, tokenizer, EDITS, layers=LAYERS, **COMMON)
    targets = wanted(model, tokenizer, LAYERS[-1])
    priors = {
        layer: reference.with_ridge(
            reference.moment(model, tokenizer, places.down(model, layer), TEXT), RIDGE
        )
        for layer in LAYERS
    }

    def update(layer: int, keys: torch.Tensor, residuals: torch.Tensor) -> torch.Tensor:
        return reference.memit_update(keys, residuals, priors[layer], 20.0)

    expected = reference.spread(
        model,
        tokenizer,
        FACTS,
        targets,
        TEMPLATES,
        LAYERS,
        places,
        update,
        at_down=True,
        power=0.5,
    )
    for found, layer in zip(patch.factors, LAYERS, strict=True):
        assert relative(patch.delta(found), expected[layer]) < 1e-4


def test_is_not_memit() -> None:
    model, tokenizer = tiny_model("gpt2")
    pmet = registry().get("pmet").edit(model, tokenizer, EDITS, layers=LAYERS, **COMMON)
    memit = registry().get("memit").edit(model, tokenizer, EDITS, layers=LAYERS, **COMMON)
    assert difference(pmet, memit) > 0.1
