from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import (
    COMMON,
    EDITS,
    TEMPLATES,
    difference,
    relative,
    tiny_model,
)

from emend.editing import subject_keys
from emend.errors import NumericalFailure
from emend.methods import registry
from emend.models import ModelView

LAYER = 1


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_one_edit_is_r_rome(architecture) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    settings = {**COMMON, "layer": LAYER, "clamp": 4.0}
    emmet = registry().get("emmet").edit(model, tokenizer, EDITS[:1], weight=0.0, **settings)
    rome = registry().get("rome").edit(model, tokenizer, EDITS[:1], **settings)
    assert difference(emmet, rome) < 1e-5
    assert emmet.factors[next(iter(emmet.factors))].columns == (EDITS[0].id,)


def test_every_value_is_written_exactly_at_weight_zero() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    settings = {**COMMON, "layer": LAYER, "weight": 0.0}
    patch = registry().get("emmet").edit(model, tokenizer, EDITS, **settings)
    view = ModelView(model)
    before = subject_keys(view, tokenizer, EDITS, TEMPLATES, [LAYER])[LAYER]
    with patch.applied(model):
        after = subject_keys(view, tokenizer, EDITS, TEMPLATES, [LAYER])[LAYER]
    moved = (after.outputs - before.outputs).mean(1)  # (E, width)
    for edit, change in zip(EDITS, moved, strict=True):
        one = registry().get("emmet").edit(model, tokenizer, [edit], **settings)
        key = before.keys[EDITS.index(edit)].mean(0)
        assert relative(change, one.delta(*one.factors) @ key) < 1e-4


def test_keys_that_cannot_be_told_apart_are_refused_at_weight_zero() -> None:
    model, tokenizer = tiny_model("gpt2")
    twin = type(EDITS[0])(EDITS[0].prompt + " the", EDITS[0].subject, "Rome")
    with pytest.raises(NumericalFailure, match="told apart"):
        registry().get("emmet").edit(
            model, tokenizer, [EDITS[0], twin], **{**COMMON, "weight": 0.0, "templates": ("{}",)}
        )
