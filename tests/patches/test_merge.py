from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from tests.patches.helpers import MODULES, logits, random_patch, same_bits, state_bits
from tests.tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from emend.errors import BrokenFile, InvalidInput, NumericalFailure
from emend.models import model_fingerprint
from emend.patches import LowRank, WeightPatch


@pytest.mark.parametrize("architecture", tuple(MODULES))
def test_merged_weights_answer_as_the_attached_patch(architecture):
    model, _ = tiny_model(architecture)
    clean, before = logits(model), state_bits(model)
    patch = random_patch(model, architecture, layers=(0, 2), ranks=(1, 3))
    with patch.applied(model):
        edited = logits(model)
    patch.merge_into(model)
    torch.testing.assert_close(logits(model), edited, atol=1e-4, rtol=1e-5)
    assert (edited - clean).abs().max() > 0.1
    after = state_bits(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in patch.factors}
    with pytest.raises(InvalidInput, match="hash"):
        patch.merge_into(model)
    patch.merge_into(model, allow_other_base=True)


def test_low_precision_is_rounded_once():
    model, _ = tiny_model("llama", dtype=torch.bfloat16)
    patch = random_patch(model, "llama", ranks=(3,))
    (name,) = patch.factors
    weight = model.get_submodule(name).weight
    expected = (weight.detach().float() + patch.delta(name)).to(torch.bfloat16)
    patch.merge_into(model)
    assert torch.equal(weight, expected)


def test_nothing_is_written_when_one_weight_cannot_be():
    model, _ = tiny_model("llama", dtype=torch.float16)
    patch = random_patch(model, "llama", layers=(0, 2), ranks=(1, 1))
    name = MODULES["llama"].format(2)
    huge = replace(patch, factors={**patch.factors, name: patch.factors[name].scaled(1e6)})
    before = state_bits(model)
    with pytest.raises(NumericalFailure, match="float16"):
        huge.merge_into(model)
    assert same_bits(before, state_bits(model))


def test_attached_patches_and_other_models_are_refused(tmp_path):
    model, words = tiny_model("llama")
    patch = random_patch(model, "llama")
    with patch.applied(model):
        with pytest.raises(InvalidInput, match="attached"):
            patch.merge_into(model)
        with pytest.raises(InvalidInput, match="attached"):
            patch.save_merged(model, words, tmp_path / "out")
    other, _ = tiny_model("llama", seed=3)
    with pytest.raises(InvalidInput, match="hash"):
        patch.save_merged(other, words, tmp_path / "out")
    with pytest.raises(InvalidInput, match="lacks the module"):
        patch.merge_into(tiny_model("gpt2")[0])
    assert not list(tmp_path.iterdir())


def test_tied_offloaded_and_quantised_weights_are_refused():
    model, _ = tiny_model("llama", tie_word_embeddings=True)
    out, width = model.lm_head.weight.shape
    head = WeightPatch({"lm_head": LowRank(torch.ones(1, width), torch.ones(out, 1))})
    with pytest.raises(InvalidInput, match=r"lm_head is tied to that of model\.embed_tokens"):
        head.merge_into(model)
    patch = random_patch(model, "llama")
    quantised = copy.deepcopy(model)
    module = quantised.get_submodule(MODULES["llama"].format(1))
    kind = type("Int8Params", (torch.nn.Parameter,), {})
    module.weight = kind(module.weight.detach())
    with pytest.raises(InvalidInput, match="quantised"):
        patch.merge_into(quantised)
    model.model.norm.to("meta")
    with pytest.raises(InvalidInput, match="offloaded"):
        patch.merge_into(model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", tuple(MODULES))
def test_a_merged_checkpoint_is_an_ordinary_one(architecture, tied, tmp_path):
    model, words = tiny_model(architecture, tie_word_embeddings=tied)
    patch = random_patch(model, architecture, layers=(0, 3), ranks=(2, 1))
    with patch.applied(model):
        edited = logits(model)
    before, config = state_bits(model), model.config.to_dict()
    directory = patch.save_merged(model, words, tmp_path / "deep" / "merged")
    assert same_bits(before, state_bits(model))
    assert model.config.to_dict() == config
    loaded = AutoModelForCausalLM.from_pretrained(directory).eval()
    torch.testing.assert_close(logits(loaded), edited, atol=1e-4, rtol=1e-5)
    embedded = loaded.get_input_embeddings().weight
    assert (loaded.get_output_embeddings().weight is embedded) == tied
    assert (directory / "model.safetensors").is_file()
    assert AutoTokenizer.from_pretrained(directory)("Lyon")["input_ids"] == words("Lyon").input_ids
    patch.merge_into(model)
    assert model_fingerprint(model) == model_fingerprint(loaded)
    card = json.loads((directory / "emend_merged.json").read_text())
    assert card["edits"] == ["one", "two"]
    assert set(card["files"]) == {path.name for path in directory.iterdir()}


def test_only_our_own_checkpoints_are_replaced(tmp_path):
    model, words = tiny_model("gpt2")
    patch = random_patch(model, "gpt2")
    directory = tmp_path / "merged"
    patch.save_merged(model, words, directory)
    patch.only("one").save_merged(model, None, directory)
    assert json.loads((directory / "emend_merged.json").read_text())["edits"] == ["one"]
    assert not (directory / "tokenizer.json").exists()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"notes\.txt"):
        patch.save_merged(model, words, directory)
    (directory / "emend_merged.json").write_text("{")
    with pytest.raises(BrokenFile, match="emend_merged"):
        patch.save_merged(model, words, directory)
    assert (directory / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_failure_midway_leaves_the_old_checkpoint(tmp_path):
    model, words = tiny_model("gpt2")
    patch = random_patch(model, "gpt2")
    directory = patch.save_merged(model, words, tmp_path / "merged")
    before = (directory / "model.safetensors").read_bytes()

    class Failing:
        def save_pretrained(self, path):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        (2 * patch).save_merged(model, Failing(), directory)
    assert (directory / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
