from __future__ import annotations

import copy

import pytest
import torch
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.models import weights_hash
from emend.patches import describe_base


def test_hash_is_of_the_weights_not_of_precision_or_object():
    model, _ = tiny_model("llama", dtype=torch.bfloat16)
    found = weights_hash(model)
    assert found == weights_hash(copy.deepcopy(model))
    assert found == weights_hash(copy.deepcopy(model).float())
    assert found == weights_hash(copy.deepcopy(model).double())
    assert found != weights_hash(tiny_model("llama", seed=1)[0])


@pytest.mark.parametrize("places", [(slice(None), slice(4096, None)), (1, 4096), (4095, 8191)])
def test_a_patch_is_refused_wherever_a_weight_differs(places):
    """Fault 2: a sample of 4,096 numbers of a 4096 x 11008 matrix was its diagonal."""
    model, _ = tiny_model("llama", layers=1, width=64, inner=8192)
    patch = random_patch(model, "llama", layers=(0,), ranks=(1,))
    other = copy.deepcopy(model)
    wide = torch.zeros(4096, 8192)
    for each, added in ((model, 0.0), (other, 100.0)):
        each.register_parameter("wide", torch.nn.Parameter(wide.clone()))
        with torch.no_grad():
            each.wide[places] += added
    patch.base["hash"] = weights_hash(model)
    patch.attach(model)
    with pytest.raises(InvalidInput, match="weights with hash"):
        patch.attach(other)


def test_a_patch_is_refused_by_another_configuration():
    """Fault 3: another rms_norm_eps moved logits and the patch was attached silently."""
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    other, _ = tiny_model("llama", rms_norm_eps=0.1)
    other.load_state_dict(model.state_dict())
    with pytest.raises(InvalidInput, match=r"rms_norm_eps=0\.1 but .* rms_norm_eps=1e-06"):
        patch.attach(other)
    with pytest.raises(InvalidInput, match="rms_norm_eps"):
        patch + random_patch(other, "llama", edits=())
    patch.attach(other, allow_other_base=True)


def test_fields_that_another_version_knows_do_not_count():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    del patch.base["config"]["mlp_bias"]
    patch.base["config"]["of_long_ago"] = 3
    model.config.pad_token_id, model.config.use_cache = 5, False
    patch.attach(model)


def test_hash_sees_an_edit_in_place():
    model, _ = tiny_model("gpt2", width=64, inner=256)
    found = weights_hash(model)
    with torch.no_grad():
        weight = model.transformer.h[1].mlp.c_proj.weight
        weight += 0.01 * torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1]))
    assert found != weights_hash(model)


def test_description():
    assert describe_base(tiny_model("gpt2")[0])["fan_in_fan_out"] is True
    base = describe_base(tiny_model("llama")[0])
    assert base["fan_in_fan_out"] is False
    assert (base["model_type"], base["depth"], base["width"]) == ("llama", 4, 32)
