"""Editors on models in half precision, spread over devices, offloaded, and with routed experts."""

from __future__ import annotations

import pytest
import torch
from tests.models.test_placing import OFFLOADED
from tests.tiny import TEXT, tiny_model
from tests.two_devices import FIRST, SECOND, split, two_devices

from emend import _tensors
from emend.editing.gradients import mlp_modules
from emend.edits import Edit
from emend.errors import UnsupportedModel
from emend.methods import registry
from emend.models import ModelView, score
from emend.models.placing import device_of, stored_weights
from emend.models.structure import find_blocks
from emend.patches import Dense, load_patch

SHORT = {"templates": ("{}", "Yes. {}"), "steps": 8, "ablation": {"norm_penalty": 0.0}}
METHODS = {
    "rome": SHORT,
    "memit": SHORT,
    "emmet": SHORT,
    "alphaedit": {**SHORT, "texts": TEXT, "quantile": 0.05},
    "ft": {"steps": 3},
}
ANYWHERE = {**METHODS, "lora": {"steps": 3, "rank": 2}, "kn": {"steps": 3}, "ultraedit": {}}
"""Those too whose change acts at every token, or at blocks that are found, not chosen."""
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
]
ROUNDING = {torch.bfloat16: (0.03, 0.5), torch.float16: (0.005, 0.2)}
"""Largest relative difference of the logits of one patch, and of what a patch changes in them.

A step of bfloat16 is 2^-8. The search magnifies it, by how much depends on the processor.
"""


def edit(name, model, tokenizer, **settings):
    return registry().get(name).edit(model, tokenizer, EDITS, **{**ANYWHERE[name], **settings})


def logits(model, tokenizer):
    ids = tokenizer("Marie Curie was born in", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids).logits[0].to("cpu").float()


def layers_of(name, *layers):
    return {"layer": layers[-1]} if name in ("rome", "emmet") else {"layers": layers}


def same(left, right):
    assert list(left.factors) == list(right.factors)
    for name, factor in left.factors.items():
        assert torch.equal(factor.dense(), right.factors[name].dense()), name


# How an architecture rounds shows in one search; how a method does, in two architectures.
ROUNDED = [
    ("rome", each) for each in ("gpt2", "gptj", "gpt_neox", "llama", "falcon", "qwen3", "gemma2")
]
ROUNDED += [(name, each) for name in METHODS for each in ("gpt2", "llama") if name != "rome"]


@pytest.mark.parametrize(("name", "architecture"), ROUNDED)
def test_half_precision_agrees_to_its_rounding(name, architecture, tmp_path):
    def model_in(dtype):
        model, tokenizer = tiny_model(architecture, dtype=torch.bfloat16, scale=1.0)
        return model.to(dtype), tokenizer  # the same weights to the last bit

    model, tokenizer = model_in(torch.float32)
    # Adam moves where L-BFGS finds nothing better; with the usual penalty little is changed.
    settings = {} if name == "ft" else {"ablation": {"optimizer": "adam", "norm_penalty": 1e-3}}
    patch = edit(name, model, tokenizer, **settings)
    before = logits(model, tokenizer)
    with patch.applied(model):
        move = logits(model, tokenizer) - before
    for dtype, (same, alike) in ROUNDING.items():
        half = model_in(dtype)[0]
        found = edit(name, half, tokenizer, **settings)
        for factor in found.factors.values():
            assert all(each.dtype == torch.float32 for each in factor.matrices())
            assert all(bool(each.isfinite().all()) for each in factor.matrices())
        loaded = load_patch(found.save_pretrained(tmp_path / str(dtype)))
        with loaded.applied(half):
            ours = logits(half, tokenizer)
        with loaded.applied(model, allow_other_base=True):
            whole = logits(model, tokenizer)
        assert (ours - whole).norm() <= same * whole.norm()
        assert (whole - before - move).norm() <= alike * move.norm()


@pytest.mark.parametrize("name", ANYWHERE)
@pytest.mark.parametrize("way", OFFLOADED)
def test_offloaded_models_are_edited_alike(name, way, tmp_path):
    plain, tokenizer = tiny_model("llama", dtype=torch.bfloat16)
    model = OFFLOADED[way](tiny_model("llama", dtype=torch.bfloat16)[0], tmp_path)
    before = [(n, p.device.type, p.requires_grad) for n, p in model.named_parameters()]
    where = layers_of(name, 1, 2)  # on both sides of the border
    patch, expected = edit(name, model, tokenizer, **where), edit(name, plain, tokenizer, **where)
    same(patch, expected)
    assert patch.base == expected.base
    with expected.applied(plain):
        wanted = logits(plain, tokenizer)
    with patch.applied(model):
        assert torch.equal(logits(model, tokenizer), wanted)
    assert [(n, p.device.type, p.requires_grad) for n, p in model.named_parameters()] == before


@pytest.mark.parametrize("way", OFFLOADED)
@pytest.mark.parametrize("name", ["memit", "rome"])
def test_an_edit_hashes_each_weight_once(name, way, tmp_path, monkeypatch):
    """Fault 34: four times in one edit, each time with all that is offloaded fetched."""
    model, tokenizer = tiny_model("llama", dtype=torch.bfloat16)
    model = OFFLOADED[way](model, tmp_path / "weights")
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    count = sum(1 for _ in stored_weights(model))
    hashed, computed = [], _tensors._computed
    monkeypatch.setattr(_tensors, "_computed", lambda one: hashed.append(1) or computed(one))
    patch = edit(name, model, tokenizer, **layers_of(name, 1, 2), texts=list(TEXT))
    with patch.applied(model):
        pass
    assert len(hashed) == count


BORDERS = [
    # Not lora: PEFT moves adapters by `Module.to`, which the second device here does not see.
    *((name, 2, "llama") for name in [*METHODS, "kn"]),
    ("memit", 1, "gpt2"),
    ("memit", 3, "llama"),
    ("rome", 2, "gemma2"),
]


BORDERS = [(*border, {}) for border in BORDERS]
BORDERS += [(name, 3, "llama", {"original": True}) for name in ("rome", "memit")]


@pytest.mark.parametrize(("name", "first", "architecture", "settings"), BORDERS)
def test_two_devices_give_what_one_gives(name, first, architecture, settings):
    """Fault 16: L-BFGS compared losses of the head's device with those of the edited layer's."""
    plain, tokenizer = tiny_model(architecture, dtype=torch.float64)
    where = layers_of(name, 2) if architecture == "gemma2" else layers_of(name, 1, 2)
    where |= settings
    expected = edit(name, plain, tokenizer, **where)
    prompts, targets = [each.text for each in EDITS], [each.target for each in EDITS]
    with expected.applied(plain):
        wanted = score(plain, tokenizer, prompts, targets)
    with two_devices():
        model = tiny_model(architecture, dtype=torch.float64)[0]
        split(model, find_blocks(model), first)
        patch = edit(name, model, tokenizer, **where)
        with patch.applied(model):
            found = score(model, tokenizer, prompts, targets)
    for module in expected.factors:  # sums may be taken in another order
        one, other = expected.delta(module), patch.delta(module)
        assert (one - other).norm() <= 1e-5 * one.norm()
    assert patch.base["hash"] == expected.base["hash"]
    for one, other in zip(found, wanted, strict=True):
        assert one.greedy == other.greedy
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


def test_two_devices_do_not_mix():
    with two_devices():
        here, there = torch.ones(3), torch.ones(3, device=SECOND)
        assert (here.device, there.device) == (FIRST, SECOND)
        with pytest.raises(RuntimeError, match="one device"):
            here + there
        with pytest.raises(RuntimeError, match="indices are on"):
            here[torch.tensor([0], device=SECOND)]
        assert torch.equal((here.to(SECOND) + there).to(FIRST), 2 * torch.ones(3))
        model, _ = tiny_model("llama")
        split(model, find_blocks(model), 2)
        assert device_of(model.model.layers[1]) == FIRST
        assert device_of(model.model.layers[2]) == device_of(model.lm_head) == SECOND


@pytest.mark.parametrize("name", METHODS)
def test_the_dense_blocks_of_a_mixture_are_edited(name):
    model, tokenizer = tiny_model("qwen3_moe", mlp_only_layers=[0, 2])
    before = score(model, tokenizer, [EDITS[0].text], [EDITS[0].target])[0].total
    patch = edit(name, model, tokenizer, **layers_of(name, 2))
    assert list(patch.factors) == ["model.layers.2.mlp.down_proj"]
    with patch.applied(model):
        assert score(model, tokenizer, [EDITS[0].text], [EDITS[0].target])[0].total > before
    with pytest.raises(UnsupportedModel, match=r"block 1.*mixture of experts.*blocks 0, 2$"):
        edit(name, model, tokenizer, **layers_of(name, 1))
    assert set(edit(name, model, tokenizer).factors) <= {
        "model.layers.0.mlp.down_proj",
        "model.layers.2.mlp.down_proj",
    }


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("architecture", ["qwen2_moe", "deepseek_v3"])
def test_the_shared_expert_is_edited_exactly(name, architecture):
    model, tokenizer = tiny_model(architecture)
    patch = edit(name, model, tokenizer, **layers_of(name, 1))
    (path,) = patch.factors
    assert ".shared_expert" in path
    with patch.applied(model):
        edited = logits(model, tokenizer)
    with torch.no_grad():
        model.get_submodule(path).weight += patch.delta(path)
    assert (logits(model, tokenizer) - edited).norm() <= 1e-4 * edited.norm()


def test_neurons_of_a_mixture_are_sought_where_it_can_be_edited():
    model, tokenizer = tiny_model("qwen3_moe", layers=6, mlp_only_layers=[0, 3, 4])
    patch = edit("kn", model, tokenizer, threshold=0.0, share=0.0)
    assert patch.config["layers"] == (0, 3, 4)
    assert len(patch.factors) == 3
    model, tokenizer = tiny_model("deepseek_v3", inner=48, moe_intermediate_size=64)
    assert [ModelView(model).intermediate_size(layer) for layer in range(4)] == [48, 64, 64, 64]
    assert edit("kn", model, tokenizer).config["layers"] == (1, 2, 3)


def test_ultraedit_of_a_mixture_takes_the_blocks_that_can_be_edited():
    for chosen, expected in (([0, 1, 3], (3,)), ([0, 1], (1,))):
        model, tokenizer = tiny_model("qwen3_moe", mlp_only_layers=chosen)
        patch = edit("ultraedit", model, tokenizer)
        assert patch.config["layers"] == expected
        assert list(patch.factors) == [f"model.layers.{expected[0]}.mlp.down_proj"]
    model, tokenizer = tiny_model("qwen2_moe")
    into, down = mlp_modules(ModelView(model), 2)
    assert [name.rpartition("shared_expert.")[2] for name in (*into, down)] == [
        *("gate_proj", "up_proj", "down_proj")
    ]
    assert list(edit("ultraedit", model, tokenizer, layers=(2,)).factors) == [down]


def test_routed_blocks_between_edited_ones_are_passed_through():
    model, tokenizer = tiny_model("qwen3_moe", layers=6, mlp_only_layers=[0, 3])
    patch = edit("memit", model, tokenizer, layers=(0, 3))
    assert len(patch.factors) == 2
    assert not any(isinstance(factor, Dense) for factor in patch.factors.values())
    assert ModelView(model).editable == (0, 3)
