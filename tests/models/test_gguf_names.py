from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import InvalidInput, UnsupportedModel
from emend.models.gguf_names import gguf_names
from emend.patches import describe_base

pytest.importorskip("gguf", reason="needs the package gguf")


def names_of(architecture):
    model, _ = tiny_model(architecture, layers=2)
    return gguf_names(describe_base(model)), model


@pytest.mark.parametrize(
    ("architecture", "expected", "module", "tensor"),
    [
        ("llama", "llama", "model.layers.1.mlp.down_proj", "blk.1.ffn_down"),
        ("mistral", "llama", "model.layers.1.self_attn.k_proj", "blk.1.attn_k"),
        ("gpt2", "gpt2", "transformer.h.0.mlp.c_proj", "blk.0.ffn_down"),
        ("gpt_neox", "gptneox", "gpt_neox.layers.0.mlp.dense_4h_to_h", "blk.0.ffn_down"),
        ("gemma3", "gemma3", "model.layers.1.mlp.gate_proj", "blk.1.ffn_gate"),
        ("phi", "phi2", "model.layers.0.mlp.fc2", "blk.0.ffn_down"),
        ("cohere", "command-r", "model.layers.0.mlp.down_proj", "blk.0.ffn_down"),
        ("bloom", "bloom", "transformer.h.1.mlp.dense_4h_to_h", "blk.1.ffn_down"),
        ("qwen3", "qwen3", "model.layers.1.self_attn.o_proj", "blk.1.attn_output"),
        ("qwen2_moe", "qwen2moe", "model.layers.1.mlp.shared_expert.down_proj",
         "blk.1.ffn_down_shexp"),
    ],
)  # fmt: skip
def test_names_are_those_of_gguf(architecture, expected, module, tensor):
    names, model = names_of(architecture)
    assert names.architecture == expected
    assert names.tensor(module) == tensor
    assert names.modules(name for name, _ in model.named_modules())[tensor] == module


def test_a_model_within_a_model():
    names, _ = names_of("gemma3")
    assert names.tensor("model.language_model.layers.1.mlp.down_proj") == "blk.1.ffn_down"


def test_unknown_architectures_and_modules_are_refused_in_one_line():
    with pytest.raises(UnsupportedModel, match=r"gguf knows no architecture for 'opt'.*merged"):
        names_of("opt")
    names, _ = names_of("llama")
    for module in ("model.layers.1.mlp.side", "model.layers.7.mlp.down_proj", "down_proj"):
        with pytest.raises(InvalidInput, match="names no tensor of 'llama'"):
            names.tensor(module)


def test_rows_are_reordered_and_put_back():
    names, _ = names_of("llama")  # 4 heads of 8 rows, 2 of keys
    rows = torch.arange(32.0)[:, None]
    moved = names.to_gguf("blk.0.attn_q", rows)
    assert moved[:8, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    for tensor, size in (("blk.0.attn_q", 32), ("blk.0.attn_k", 16), ("blk.0.attn_v", 16)):
        back = names.from_gguf(tensor, names.to_gguf(tensor, rows[:size]))
        assert torch.equal(back, rows[:size])
    assert torch.equal(names.to_gguf("blk.0.ffn_down", rows), rows)
    with pytest.raises(InvalidInput, match="order of the rows"):
        names_of("gpt_neox")[0].to_gguf("blk.0.attn_qkv", rows)
