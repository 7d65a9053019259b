"""Models quantised by bitsandbytes are edited beside their weights, which stay as they are."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.edits import Edit
from emend.errors import InvalidInput, UnsupportedModel
from emend.methods import registry
from emend.models import ModelView, load, score, weights_hash
from emend.models.placing import check_differentiable, quantisation_of
from emend.patches import load_patch

pytest.importorskip("bitsandbytes", reason="quantised models need bitsandbytes, which is optional")

FLAGS = {"4-bit": {"load_in_4bit": True}, "8-bit": {"load_in_8bit": True}}
EDIT = Edit("{} was born in", "Marie Curie", "Paris")
SHORT = {"templates": ("{}", "Yes. {}"), "steps": 8}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    def save(architecture):
        path = tmp_path_factory.mktemp(architecture)
        model, tokenizer = tiny_model(architecture, width=64, inner=128)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return {architecture: save(architecture) for architecture in ("llama", "gpt2")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["rome", "memit"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", FLAGS)
def test_edited_as_a_side_patch(saved, kind, architecture, name, tmp_path):
    model, tokenizer = load(saved[architecture], dtype="bfloat16", **FLAGS[kind])
    assert quantisation_of(model) == kind
    weights = [each.detach().clone() for each in model.parameters()]
    key = weights_hash(model)
    view = ModelView(model)
    assert (view.intermediate_size(1), view.is_transposed(1)) == (128, False)
    with pytest.raises(InvalidInput, match=f"quantised \\({kind}\\)"):
        view.matrix(1)
    before = score(model, tokenizer, [EDIT.text], [EDIT.target])[0].total
    where = {"layer": 1} if name == "rome" else {"layers": (1,)}
    patch = registry().get(name).edit(model, tokenizer, [EDIT], **where, **SHORT)
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    with loaded.applied(model):
        after = score(model, tokenizer, [EDIT.text], [EDIT.target])[0].total
    assert after > before if name == "rome" else after != before
    assert weights_hash(model) == key == patch.base["hash"]
    assert patch.base["quantised"] == kind
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FLAGS)
def test_a_patch_of_the_plain_model_is_for_other_weights(saved, kind):
    plain, tokenizer = load(saved["llama"])
    patch = registry().get("rome").edit(plain, tokenizer, [EDIT], **SHORT)
    model, _ = load(saved["llama"], dtype="float32", **FLAGS[kind])
    with pytest.raises(InvalidInput, match="allow_other_base"):
        patch.attach(model)
    before = score(model, tokenizer, [EDIT.text], [EDIT.target])[0].total
    with patch.applied(model, allow_other_base=True):
        assert score(model, tokenizer, [EDIT.text], [EDIT.target])[0].total > before


def test_scales_are_part_of_the_hash(saved):
    for kind, flags in FLAGS.items():
        model, _ = load(saved["llama"], **flags)
        before = weights_hash(model)
        weight = model.model.layers[1].mlp.down_proj.weight
        (weight.quant_state.absmax if kind == "4-bit" else weight.SCB).mul_(2)
        assert weights_hash(model) != before


def test_layers_that_lose_their_gradients_are_refused(saved):
    model, _ = load(saved["llama"], load_in_4bit=True)
    check_differentiable(model)
    # What bitsandbytes decides by itself on a processor with AVX512-BF16.
    model.model.layers[1].mlp.down_proj.support_avx512bf16_for_cpu = True
    with pytest.raises(UnsupportedModel, match=r"emend\.load"):
        ModelView(model)
    with pytest.raises(UnsupportedModel, match=r"emend\.load"):
        weights_hash(model)
