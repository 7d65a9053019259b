from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from tests.patches.helpers import MODULES, random_patch
from tests.tiny import tiny_model

from emend.errors import InvalidInput
from emend.patches import LowRank, WeightPatch, export_llama_cpp, load_patch, serving


def _patch(rank, model_type, *, transposed=False):
    base = {"model_type": model_type, "fan_in_fan_out": transposed}
    factor = LowRank(torch.ones(rank, 8), torch.ones(4, rank))
    return WeightPatch({"model.layers.1.mlp.down_proj": factor}, base=base)


def _of(patch, server):
    return [one for one in serving(patch) if one.server == server]


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (2, 8), (16, 16), (257, 320), (321, 512)])
def test_the_smallest_allowed_rank_of_vllm_is_named(rank, allowed):
    ranked, served = _of(_patch(rank, "llama"), "vLLM")
    assert (ranked.verdict, served.verdict) == ("met", "met")
    assert f"--max-lora-rank {allowed} " in ranked.remedy
    assert "--lora-target-modules down_proj" in ranked.remedy
    (sglang,) = _of(_patch(rank, "llama"), "SGLang")
    assert f"--max-lora-rank {rank} " in sglang.remedy


def test_a_rank_above_vllm_is_told_in_the_card_and_at_saving(tmp_path):
    patch = _patch(513, "llama")
    ranked, _ = _of(patch, "vLLM")
    assert ranked.verdict == "broken"
    assert "compress" in ranked.remedy
    assert "merge" in ranked.remedy
    with pytest.warns(UserWarning, match="rank 513"):
        patch.save_pretrained(tmp_path / "p")
    saved = json.loads((tmp_path / "p" / "emend.json").read_text())["serving"]
    assert saved == patch.card()["serving"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.compress().save_pretrained(tmp_path / "p")
    saved = json.loads((tmp_path / "p" / "emend.json").read_text())["serving"]
    assert "broken" not in {one["verdict"] for one in saved}


@pytest.mark.parametrize(
    ("model_type", "verdict"),
    [("gpt2", "broken"), ("falcon", "broken"), ("qwen3", "met"), ("gpt_neox", "untested")],
)
def test_models_that_vllm_gives_no_lora(model_type, verdict):
    _, served = _of(_patch(1, model_type), "vLLM")
    assert served.verdict == verdict
    assert ("save_merged" in served.remedy) == (verdict != "met")


def test_llama_cpp_and_transposed_layers(tmp_path):
    assert [one.verdict for one in _of(_patch(1, "llama"), "llama.cpp")] == ["met"]
    assert [one.verdict for one in _of(_patch(1, "opt"), "llama.cpp")] == ["untested"]
    model, _ = tiny_model("gpt2")
    patch = random_patch(model, "gpt2", layers=(0, 2), ranks=(1, 3))
    (one,) = _of(patch, "llama.cpp")
    assert one.verdict == "broken"
    assert "emend patch export" in one.remedy
    for _ in range(2):  # replaces its own
        export_llama_cpp(patch, tmp_path / "gguf")
    tensors = load_file(tmp_path / "gguf" / "adapter_model.safetensors")
    name = MODULES["gpt2"].format(2)
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    assert (a.shape, b.shape) == ((3, 32), (64, 3))  # as the weight stands: (in, out)
    torch.testing.assert_close((b @ a).T, patch.delta(name))
    with pytest.raises(InvalidInput, match="export for llama"):
        load_patch(tmp_path / "gguf")


def test_the_export_of_other_models_is_the_adapter_itself(tmp_path):
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    patch.save_pretrained(tmp_path / "p")
    export_llama_cpp(patch, tmp_path / "gguf")
    saved, exported = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("p", "gguf"))
    assert saved.keys() == exported.keys()
    assert all(torch.equal(saved[name], exported[name]) for name in saved)
