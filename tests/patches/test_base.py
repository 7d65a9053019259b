from __future__ import annotations

import copy

import torch
from tests.tiny import tiny_model

from emend.patches import describe_base, model_hash


def test_hash_is_of_the_weights_not_of_precision_or_object():
    model, _ = tiny_model("llama", dtype=torch.bfloat16)
    found = model_hash(model)
    assert found == model_hash(copy.deepcopy(model))
    assert found == model_hash(copy.deepcopy(model).float())
    assert found != model_hash(tiny_model("llama", seed=1)[0])


def test_hash_sees_an_edit_in_place():
    model, _ = tiny_model("gpt2", width=64, inner=256)
    found = model_hash(model)
    with torch.no_grad():
        weight = model.transformer.h[1].mlp.c_proj.weight
        weight += 0.01 * torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1]))
    assert found != model_hash(model)


def test_description():
    assert describe_base(tiny_model("gpt2")[0])["fan_in_fan_out"] is True
    base = describe_base(tiny_model("llama")[0])
    assert base["fan_in_fan_out"] is False
    assert (base["model_type"], base["depth"], base["width"]) == ("llama", 4, 32)
