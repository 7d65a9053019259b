"""LoRA adapters that others made, read as patches: what PEFT computes, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.patches.helpers import logits, random_patch
from tests.tiny import tiny_model

import emend
from emend.errors import BrokenFile, EmendError, InvalidInput
from emend.patches import WeightPatch, load_patch

peft = pytest.importorskip("peft")
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
ALL = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
}


def trained(architecture, directory, **settings):
    """A saved adapter of plain PEFT with random factors, the plain model, and their logits."""
    model, _ = tiny_model(architecture)
    config = peft.LoraConfig(
        init_lora_weights=False, **{"target_modules": ALL[architecture], **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, config).eval()
    found = logits(adapted)
    adapted.save_pretrained(str(directory), save_embedding_layers=False)
    return adapted.unload(), found


@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out")
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {"r": 8, "target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"r": 4, "lora_alpha": 32}),
        ("llama", {"r": 4, "lora_alpha": 3, "use_rslora": True}),
        (
            "llama",
            {
                "r": 4,
                "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 6},
                "alpha_pattern": {"model.layers.[12].mlp.down_proj": 5, "o_proj": 1},
            },
        ),
        ("llama", {"r": 2, "target_modules": ["lm_head", "o_proj"]}),
        ("gpt2", {"r": 4, "lora_alpha": 7}),
    ],
)
def test_logits_are_those_of_peft(architecture, settings, tmp_path):
    model, expected = trained(architecture, tmp_path / "a", **settings)
    patch = load_patch(tmp_path / "a")
    assert isinstance(patch, WeightPatch)
    assert float((expected - logits(model)).abs().max()) > 0.1
    with patch.applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    again = load_patch(patch.save_pretrained(tmp_path / "ours"))
    with again.applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


def test_a_foreign_adapter_is_a_vector(tmp_path):
    model, expected = trained("llama", tmp_path / "a", r=4, lora_alpha=8)
    plain = logits(model)
    patch = load_patch(tmp_path / "a")
    with (patch - patch).applied(model):
        torch.testing.assert_close(logits(model), plain, atol=1e-5, rtol=1e-5)
    assert (patch - patch).norm < 1e-6 * patch.norm
    assert (patch - patch).compress().norm == 0.0
    assert (patch - patch).compress().rank == 1
    own = random_patch(model, "llama")
    with (own + patch).applied(model):
        both = logits(model)
    with own.applied(model), patch.applied(model):
        torch.testing.assert_close(logits(model), both, atol=1e-4, rtol=1e-4)
    with (0.5 * patch + 0.5 * patch).applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    patch.merge_into(model)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


def test_a_foreign_adapter_is_audited(tmp_path):
    """What q_proj puts out is no direction of the residual stream, and is not read as one."""
    model, _ = trained("llama", tmp_path / "a", r=1, target_modules=["q_proj", "o_proj"])
    _, tokenizer = tiny_model("llama")
    found = emend.audit(model, load_patch(tmp_path / "a"), tokenizer)
    assert {one.rank for one in found.changes} == {1}
    assert len(found.changes) == 8
    for change in found.changes:
        assert bool(change.candidates) == change.name.endswith("o_proj")


def test_what_cannot_be_checked_is_noted(tmp_path, caplog):
    trained("llama", tmp_path / "a", r=1)
    with caplog.at_level("INFO", logger="emend"):
        load_patch(tmp_path / "a")
    assert "not written by emend" in caplog.text
    assert "only names and shapes of modules are checked" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_dora": True}, "use_dora=True .*DoRA rescales"),
        ({"bias": "all"}, "bias='all' .*biases"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.'lm_head'.*whole modules"),
        ({"trainable_token_indices": [3]}, "rows of the embedding"),
        ({"target_parameters": ["w"]}, "target_parameters"),
        ({"layer_replication": [[0, 2]]}, "layers are repeated"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"peft_type": "IA3"}, "peft_type='IA3', expected 'LORA'"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"r": "8"}, "r='8' for .*expected a number"),
        ({"r": 5}, "4 rows and lora_B of 4 columns, expected 5"),
        ({"rank_pattern": {"down_proj": 2}}, "expected 2 of each"),
        ({"lora_alpha": None}, "lora_alpha=None"),
    ],
)
def test_what_is_no_sum_of_low_rank_changes_is_refused(fields, message, tmp_path):
    trained("llama", tmp_path / "a", r=4)
    path = tmp_path / "a" / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises((InvalidInput, BrokenFile), match=message) as error:
        load_patch(tmp_path / "a")
    assert "\n" not in str(error.value)


PREFIX = "base_model.model."


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        (f"{PREFIX}lm_head.weight", (4, 4), "lm_head.weight .a whole weight."),
        (f"{PREFIX}model.embed_tokens.lora_embedding_A", (4, 4), "change of an embedding"),
        (f"{PREFIX}x.q_proj.lora_magnitude_vector", (4,), "magnitude of DoRA"),
        (f"{PREFIX}lm_head.base_layer.weight", (4, 4), "save_embedding_layers=False"),
        (f"{PREFIX}x.q_proj.bias", (4,), "a bias"),
        (f"{PREFIX}x.q_proj.lora_C.default", (4, 4), "an unknown tensor"),
        ("x.q_proj.lora_A.weight", (4, 4), "does not begin with base_model.model"),
        (f"{PREFIX}x.q_proj.lora_A.weight", (4, 4), "without .*lora_B.weight.*both halves"),
        (f"{PREFIX}x.q_proj.lora_B.weight", (4, 4), "without .*lora_A.weight.*both halves"),
    ],
)
def test_what_belongs_to_no_pair_of_factors_is_refused(key, shape, message, tmp_path):
    trained("llama", tmp_path / "a", r=4)
    path = tmp_path / "a" / TENSORS
    save_file({**load_file(path), key: torch.ones(shape)}, path)
    with pytest.raises((InvalidInput, BrokenFile), match=message):
        load_patch(tmp_path / "a")


def test_a_pickle_is_refused(tmp_path):
    trained("llama", tmp_path / "a", r=4)
    (tmp_path / "a" / TENSORS).rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(InvalidInput, match=r"a pickle.*save_pretrained"):
        load_patch(tmp_path / "a")


@pytest.mark.parametrize(
    ("architecture", "sizes", "message"),
    [
        ("gpt2", {}, r"GPT2LMHeadModel lacks 20 of 20 modules .*for \(some/llama\)"),
        ("llama", {"width": 64}, r"shape \(64, 128\) .*changes \(32, 64\).*\(some/llama\)"),
        ("llama", {"layers": 2}, r"lacks 10 of 20 modules .*model\.layers\.2"),
    ],
)
def test_an_adapter_of_another_base_is_refused(architecture, sizes, message, tmp_path):
    trained("llama", tmp_path / "a", r=4)
    path = tmp_path / "a" / CONFIG
    config = {**json.loads(path.read_text()), "base_model_name_or_path": "some/llama"}
    path.write_text(json.dumps(config))
    other, _ = tiny_model(architecture, **sizes)
    patch = load_patch(tmp_path / "a")
    for use in (
        lambda: load_patch(tmp_path / "a", other),
        lambda: patch.attach(other),
        lambda: patch.merge_into(other),
        lambda: emend.audit(other, patch),
    ):
        with pytest.raises(EmendError, match=message):
            use()


def test_a_change_of_an_embedding_is_refused(tmp_path):
    """An Embedding has a weight of two dimensions, too, and looks it up instead."""
    model, _ = tiny_model("llama")
    rows, width = model.model.embed_tokens.weight.shape
    factor = emend.patches.LowRank(torch.ones(1, width), torch.ones(rows, 1))
    with pytest.raises(InvalidInput, match="is a Embedding, expected a linear layer"):
        WeightPatch({"model.embed_tokens": factor}).attach(model)
