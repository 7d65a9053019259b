from __future__ import annotations

import pytest
import torch
from tests.methods.closed_form import (
    COMMON,
    EDITS,
    SEARCH,
    TEMPLATES,
    TEXT,
    edited,
    relative,
    tiny_model,
)

from emend.editing import (
    SearchSettings,
    collect_covariance,
    optimise_values,
    rank_one,
    subject_keys,
)
from emend.editing.ridge import directions, inverse
from emend.errors import NumericalFailure
from emend.models import ModelView

LAYER = 1


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
def test_one_edit_is_r_rome(architecture) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    settings = {**COMMON, "layer": LAYER, "clamp": 4.0}
    emmet = edited("emmet", model, tokenizer, EDITS[:1], cov_weight=0.0, **settings)
    view, search = ModelView(model), SearchSettings(clamp=4.0, **SEARCH)
    (value,) = optimise_values(view, tokenizer, EDITS[:1], TEMPLATES, LAYER, search)
    moment = collect_covariance(view, tokenizer, TEXT, [LAYER])[LAYER].matrix
    metric, key = inverse(moment), value.keys.mean(0)
    direction = directions(metric.unwhiten(metric.whiten(key[:, None])).T)[0]
    u, v = rank_one(direction, key, value.outputs.mean(0), value.target)
    (name,) = emmet.factors
    assert relative(emmet.delta(name), torch.outer(v, u)) < 1e-5
    assert emmet.factors[next(iter(emmet.factors))].columns == (EDITS[0].id,)


def test_every_value_is_written_exactly_at_weight_zero() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    settings = {**COMMON, "layer": LAYER, "cov_weight": 0.0}
    patch = edited("emmet", model, tokenizer, **settings)
    view = ModelView(model)
    before = subject_keys(view, tokenizer, EDITS, TEMPLATES, [LAYER])[LAYER]
    with patch.applied(model):
        after = subject_keys(view, tokenizer, EDITS, TEMPLATES, [LAYER])[LAYER]
    moved = (after.outputs - before.outputs).mean(1)  # (E, width)
    for edit, change in zip(EDITS, moved, strict=True):
        one = edited("emmet", model, tokenizer, [edit], **settings)
        key = before.keys[EDITS.index(edit)].mean(0)
        assert relative(change, one.delta(*one.factors) @ key) < 1e-4


def test_keys_that_cannot_be_told_apart_are_refused_at_weight_zero() -> None:
    model, tokenizer = tiny_model("gpt2")
    twin = type(EDITS[0])(EDITS[0].prompt + " the", EDITS[0].subject, "Rome")
    with pytest.raises(NumericalFailure, match="linearly dependent"):
        edited(
            *("emmet", model, tokenizer, [EDITS[0], twin]),
            **{**COMMON, "cov_weight": 0.0, "templates": ("{}",)},
        )
