"""Weights that are offloaded, or on two devices, are read where they are."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model
from tests.two_devices import split, two_devices

from emend.errors import InvalidInput
from emend.models import ModelView, generate, model_fingerprint, score, weights_hash
from emend.models.hooks import frozen
from emend.models.placing import device_of, dtype_of, weight_of, weights_of
from emend.models.structure import find_blocks

accelerate = pytest.importorskip("accelerate", reason="offloading needs accelerate")

PROMPTS = ["Marie Curie was born in", "Tom Berg works for"]


def half_on_disk(model, folder):
    """The upper half of the blocks on disk, all else in memory, as a device map would have it."""
    view = ModelView(model)
    name = view.name_of(view.layer(0)).rsplit(".", 1)[0]
    half = view.num_layers // 2
    places = {f"{name}.{n}": "cpu" if n < half else "disk" for n in range(view.num_layers)}
    for module, _ in model.base_model.named_children():
        full = f"{model.base_model_prefix}.{module}"
        if full != name:
            places[full] = "cpu"
    return accelerate.dispatch_model(model, {**places, "lm_head": "cpu"}, offload_dir=str(folder))


OFFLOADED = {
    "memory": lambda model, folder: accelerate.cpu_offload(model, torch.device("cpu")),
    "disk": lambda model, folder: accelerate.disk_offload(model, str(folder), torch.device("cpu")),
    "half on disk": half_on_disk,
}


@pytest.mark.parametrize("way", OFFLOADED)
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])  # tied and untied embeddings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offloaded_weights_have_their_values(way, architecture, dtype, tmp_path):
    plain, tokenizer = tiny_model(architecture, dtype=dtype)
    model = OFFLOADED[way](tiny_model(architecture, dtype=dtype)[0], tmp_path)
    away = [name for name, each in model.named_parameters() if each.device.type == "meta"]
    assert away
    expected = dict(weights_of(plain))
    found = dict(weights_of(model))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model_fingerprint(model) == model_fingerprint(plain)
    assert [n for n, each in model.named_parameters() if each.device.type == "meta"] == away
    view = ModelView(model)
    assert torch.equal(view.matrix(3), ModelView(plain).matrix(3))
    assert view.device(3) == device_of(model) == torch.device("cpu")
    assert dtype_of(view.lm_head) == dtype
    assert score(model, tokenizer, PROMPTS, ["Warsaw", "Nordlicht"]) == score(
        plain, tokenizer, PROMPTS, ["Warsaw", "Nordlicht"]
    )
    assert generate(model, tokenizer, PROMPTS) == generate(plain, tokenizer, PROMPTS)


def test_hash_of_an_offloaded_model_sees_a_changed_weight(tmp_path):
    model, _ = tiny_model("llama")
    before = model_fingerprint(model)
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight.mul_(1.5)
    after = model_fingerprint(model)
    assert before != after
    assert model_fingerprint(half_on_disk(model, tmp_path)) == after


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_a_model_split_over_two_devices_is_the_same(architecture):
    plain, _ = tiny_model(architecture)
    with two_devices():
        model, _ = tiny_model(architecture)
        split(model, find_blocks(model), 2)
        assert model_fingerprint(model) == model_fingerprint(plain)
        assert weights_hash(model) == weights_hash(plain)


def test_hooks_of_modules_with_children_are_found(tmp_path):
    plain, _ = tiny_model("llama", layers=2)
    model = accelerate.cpu_offload(
        tiny_model("llama", layers=2)[0],
        torch.device("cpu"),
        preload_module_classes=["LlamaMLP"],  # one hook for all of an MLP
    )
    assert not hasattr(model.model.layers[1].mlp.down_proj, "_hf_hook")
    assert model_fingerprint(model) == model_fingerprint(plain)


def test_gradient_flags_of_offloaded_weights_come_back():
    model, tokenizer = tiny_model("llama", layers=2)
    model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    accelerate.cpu_offload(model, torch.device("cpu"))
    before = [each.requires_grad for each in model.parameters()]
    assert len(set(before)) == 2
    with frozen(model):
        score(model, tokenizer, PROMPTS, ["Warsaw", "Nordlicht"])
        assert not any(each.requires_grad for each in model.parameters())
    assert [each.requires_grad for each in model.parameters()] == before


def test_weights_without_values_are_refused():
    with torch.device("meta"):
        empty = torch.nn.Linear(3, 3)
    with pytest.raises(InvalidInput, match="meta device"):
        weight_of(empty)
    with pytest.raises(InvalidInput, match=r"from_pretrained$"):
        dict(weights_of(empty))


def test_a_device_is_found_for_modules_without_weights():
    assert device_of(torch.nn.Dropout()) == torch.device("cpu")
    assert dtype_of(torch.nn.Dropout()) is None
