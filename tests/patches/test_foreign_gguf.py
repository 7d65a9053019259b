"""LoRA adapters in GGUF files, as llama.cpp's converter writes them, read as patches."""

from __future__ import annotations

import pytest
import torch
from tests.patches.helpers import logits
from tests.tiny import tiny_model

from emend.errors import BrokenFile, InvalidInput, UnsupportedModel
from emend.patches import LowRank, WeightPatch, load_patch

gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")

TENSORS = {
    "llama": {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_down": "mlp.down_proj",
    },
    "qwen2": {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj"},
    "gemma3": {"attn_q": "self_attn.q_proj", "ffn_down": "mlp.down_proj"},
    "gpt2": {"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_down": "mlp.c_proj"},
}


def prefix(architecture):
    return "transformer.h" if architecture == "gpt2" else "model.layers"


def changes(model, architecture, layers=(0, 2)):
    """A patch of many modules with unequal ranks, and its tensors' names."""
    generator = torch.Generator().manual_seed(0)
    factors, names = {}, {}
    for layer in layers:
        for rank, (tensor, module) in enumerate(TENSORS[architecture].items(), 1):
            name = f"{prefix(architecture)}.{layer}.{module}"
            shape = model.get_submodule(name).weight.shape
            out, into = shape[::-1] if architecture == "gpt2" else shape
            a = torch.randn(rank, into, generator=generator)
            factors[name] = LowRank(a, torch.randn(out, rank, generator=generator) * 0.3)
            names[name] = f"blk.{layer}.{tensor}.weight"
    return WeightPatch(factors), names


def permuted(rows, heads):
    """What llama.cpp's converter does to the rows of query and key projections of Llama."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def write(path, architecture, tensors, alpha=0.0, **fields):
    writer = gguf.GGUFWriter(path, architecture)
    fields = {"general.type": "adapter", "adapter.type": "lora", **fields}
    for key, value in fields.items():
        writer.add_string(key, value)
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def halves(model, architecture, patch, names, dtype="float32"):
    """The tensors of a patch as llama.cpp's converter names and orders them."""
    found = {}
    heads = model.config.num_attention_heads
    heads = {"attn_q": heads, "attn_k": getattr(model.config, "num_key_value_heads", heads)}
    for module, factor in patch.factors.items():
        b = factor.B.numpy()
        kind = names[module].split(".")[2]
        if architecture == "llama" and kind in heads:
            b = permuted(b, heads[kind])
        found[f"{names[module]}.lora_a"] = factor.A.numpy().astype(dtype)
        found[f"{names[module]}.lora_b"] = b.astype(dtype)
    return found


@pytest.mark.parametrize("architecture", tuple(TENSORS))
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_a_gguf_adapter_is_the_patch_it_was_written_from(architecture, alpha, tmp_path):
    model, _ = tiny_model(architecture)
    patch, names = changes(model, architecture)
    path = write(
        tmp_path / "a.gguf", architecture, halves(model, architecture, patch, names), alpha
    )
    found = load_patch(path, model)
    assert found.factors.keys() == patch.factors.keys()
    for name, factor in patch.factors.items():
        scale = alpha / factor.rank if alpha else 1.0
        torch.testing.assert_close(found.delta(name), scale * factor.dense(), rtol=1e-6, atol=1e-6)
    with found.applied(model):
        edited = logits(model)
    again = load_patch(found.save_pretrained(tmp_path / "ours"))
    with again.applied(model):
        torch.testing.assert_close(logits(model), edited)
    assert "hash" not in found.base
    assert found.base["model_type"] == model.config.model_type


def test_half_precision_is_read(tmp_path):
    model, _ = tiny_model("llama")
    patch, names = changes(model, "llama")
    tensors = halves(model, "llama", patch, names, "float16")
    found = load_patch(write(tmp_path / "a.gguf", "llama", tensors), model)
    for name in patch.factors:
        torch.testing.assert_close(found.delta(name), patch.delta(name), rtol=1e-2, atol=1e-2)


def test_an_adapter_of_peft_is_the_same_in_both_forms(tmp_path):
    """Rank 8 on q_proj and v_proj, by plain PEFT."""
    peft = pytest.importorskip("peft")
    model, _ = tiny_model("llama")
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    expected = logits(adapted)
    adapted.save_pretrained(str(tmp_path / "a"))
    model = adapted.unload()
    patch = load_patch(tmp_path / "a")
    tensors = {module.rpartition(".")[2]: tensor for tensor, module in TENSORS["llama"].items()}
    names = {
        name: f"blk.{name.split('.')[2]}.{tensors[name.rpartition('.')[2]]}.weight"
        for name in patch.factors
    }
    path = write(tmp_path / "a.gguf", "llama", halves(model, "llama", patch, names))
    found = load_patch(path, model)
    assert (found - patch).compress().norm == 0.0
    with found.applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)


def test_without_a_model_its_names_mean_nothing(tmp_path):
    model, _ = tiny_model("llama")
    patch, names = changes(model, "llama")
    path = write(tmp_path / "a.gguf", "llama", halves(model, "llama", patch, names))
    with pytest.raises(InvalidInput, match=r"llama\.cpp does, expected the model.*model=MODEL"):
        load_patch(path)


def _broken(what, model, path):
    patch, names = changes(model, "llama", layers=(0,))
    tensors = halves(model, "llama", patch, names)
    first = "blk.0.attn_q.weight.lora_a"
    ones = torch.ones(2, 2).numpy()
    if what == "half":
        del tensors[first]
    elif what == "architecture":
        return write(path, "qwen2", tensors)
    elif what == "kind":
        return write(path, "llama", tensors, **{"general.type": "model"})
    elif what == "no lora":
        return write(path, "llama", tensors, **{"adapter.type": "control"})
    elif what == "another depth":
        tensors = {key.replace("blk.0", "blk.9"): value for key, value in tensors.items()}
    elif what == "embedding":
        tensors |= {f"token_embd.weight.lora_{side}": ones for side in "ab"}
    elif what == "bias":
        tensors |= {"blk.0.attn_q.bias": ones}
    elif what == "unknown":
        tensors |= {f"blk.0.wing.weight.lora_{side}": ones for side in "ab"}
    elif what == "ranks":
        tensors[first] = torch.ones(5, 32).numpy()
    elif what == "shape":
        tensors |= {f"blk.1.ffn_up.weight.lora_{side}": ones for side in "ab"}
    elif what == "heads":
        tensors["blk.0.attn_q.weight.lora_b"] = torch.ones(33, 1).numpy()
    write(path, "llama", tensors)
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif what == "header":
        path.write_bytes(path.read_bytes()[:100])
    elif what == "no gguf":
        path.write_bytes(b"nothing of it")
    return path


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("half", BrokenFile, "attn_q.weight.lora_b without blk.0.attn_q.weight.lora_a"),
        ("architecture", InvalidInput, "architecture 'qwen2', and LlamaForCausalLM .* 'llama'"),
        ("kind", InvalidInput, r"of type model \(lora\), expected an adapter"),
        ("no lora", InvalidInput, r"of type adapter \(control\), expected an adapter"),
        ("another depth", InvalidInput, "blk.9.attn_q.weight .of no linear layer"),
        ("embedding", InvalidInput, "token_embd.weight .of no linear layer"),
        ("bias", InvalidInput, "attn_q.bias .no half of a low-rank change"),
        ("unknown", InvalidInput, "blk.0.wing.weight .of no linear layer"),
        ("ranks", InvalidInput, r"factors of shape \(5, 32\) and \(32, 1\)"),
        ("shape", InvalidInput, r"module model\.layers\.1\.mlp\.up_proj has shape"),
        ("heads", InvalidInput, "order of rows .* is not known for this model"),
        ("cut", BrokenFile, "cut short or broken after its header"),
        ("header", BrokenFile, "ends within its header"),
        ("no gguf", BrokenFile, "does not begin with GGUF"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_refused(what, kind, message, tmp_path):
    model, _ = tiny_model("llama")
    path = _broken(what, model, tmp_path / "a.gguf")
    with pytest.raises(kind, match=message) as error:
        load_patch(path, model)
    assert "\n" not in str(error.value)


def test_an_order_of_rows_that_is_not_known_is_refused(tmp_path):
    model, _ = tiny_model("gptj")
    tensors = {f"blk.0.attn_q.weight.lora_{side}": torch.ones(2, 2).numpy() for side in "ab"}
    path = write(tmp_path / "a.gguf", "gptj", tensors)
    with pytest.raises((InvalidInput, UnsupportedModel), match=r"order of rows|gptj"):
        load_patch(path, model)
