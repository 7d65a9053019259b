from __future__ import annotations

import json
import warnings

import pytest
import torch

from emend.patches import LowRank, WeightPatch, serving


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
    assert ("--format merged" in served.remedy) == (verdict != "met")


@pytest.mark.parametrize(
    ("model_type", "verdict", "said"),
    [("llama", "met", "--format gguf"), ("gpt_neox", "met", "--cache-ram 0"),
     ("opt", "broken", "merged")],
)  # fmt: skip
def test_models_whose_tensors_gguf_names(model_type, verdict, said):
    name = "gpt_neox.layers.1.mlp.dense_4h_to_h" if model_type == "gpt_neox" else None
    patch = _patch(1, model_type)
    if name:
        patch = WeightPatch({name: next(iter(patch.factors.values()))}, base=patch.base)
    (one,) = _of(patch, "llama.cpp")
    assert one.verdict == verdict
    assert said in one.remedy


def test_fused_attention_whose_rows_are_reordered_is_refused():
    factor = LowRank(torch.ones(1, 8), torch.ones(24, 1))
    modules = {"gpt_neox.layers.1.attention.query_key_value": factor}
    (one,) = _of(WeightPatch(modules, base={"model_type": "gpt_neox"}), "llama.cpp")
    assert one.verdict == "broken"
    assert "order of the rows" in one.what
