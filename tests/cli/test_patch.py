from __future__ import annotations

import json

import pytest
import torch

from emend.models import load
from emend.patches import load_patch


def test_show(emend, memit_directory):
    path = memit_directory / "both"
    outcome = emend("patch", "show", path)
    assert outcome.status == 0, outcome.err
    said = (
        "2 edits, rank 2",
        "transformer.h.",
        "curie",
        "Marie Curie was born in",
        "vLLM",
        "gpt2",
    )
    for word in said:
        assert word in outcome.out
    found = emend("patch", "show", path, "--json").data
    assert [edit["id"] for edit in found["edits"]] == ["curie", "a,b"]
    assert found["rank"] == 2
    broken = {one["server"] for one in found["serving"] if one["verdict"] == "broken"}
    assert broken == {"vLLM"}  # no LoRA for GPT-2 there


def test_patches_are_reckoned_with(emend, tmp_path, memit_directory):
    both, curie = (load_patch(memit_directory / name) for name in ("both", "curie"))
    (name,) = curie.factors
    out = tmp_path / "out"
    emend("patch", "without", memit_directory / "both", "--ids", "a,b", "--output_path", out)
    torch.testing.assert_close(load_patch(out).delta(name), curie.delta(name))
    given = ("--ids", "curie", "--output_path", out, "--json")
    assert emend("patch", "only", memit_directory / "both", *given).data["edits"] == ["curie"]
    outcome = emend("patch", "scale", memit_directory / "both", "--by", -2, "--output_path", out)
    assert outcome.status == 0, outcome.err
    torch.testing.assert_close(load_patch(out).delta(name), -2 * both.delta(name))
    outcome = emend(
        "patch", "compress", memit_directory / "both", "--rank", 1, "--output_path", out
    )
    assert "relative error" in outcome.out
    small = load_patch(out)
    assert small.rank == 1
    assert 0 < small.compression[name] < 1


def test_a_rank_that_a_server_refuses_is_said(emend, tmp_path, memit_directory):
    curie = load_patch(memit_directory / "curie")
    rows = {name: factor.rows([0] * 600) for name, factor in curie.factors.items()}
    many = type(curie)(rows, base=curie.base, edits=curie.edits)
    with pytest.warns(UserWarning, match="rank 600"):
        many.save_pretrained(tmp_path / "many")
    flags = ("patch", "scale", tmp_path / "many", "--by", 1, "--output_path", tmp_path / "out")
    outcome = emend(*flags)
    assert "vLLM serves adapters of rank 512 at most" in outcome.out
    assert outcome.err == ""
    flags = ("patch", "compress", tmp_path / "many", "--output_path", tmp_path / "out", "--json")
    assert emend(*flags).data["rank"] == 1


def test_mistakes(emend, tmp_path, memit_directory, model_directory):
    out = ("--output_path", tmp_path / "out")
    both = memit_directory / "both"
    emend("patch", "add", both, *out).is_one_line("two patches or more")
    emend("patch", "only", both, "--ids", "curei", *out).is_one_line("did you mean 'curie'?")
    emend("patch", "show", tmp_path / "none").is_one_line("no patch at")
    emend("patch", "compress", both, "--rank", 0, *out).is_one_line("rank is 0")
    flags = ("--rank", 1, "--tolerance", 1e-4)
    emend("patch", "compress", both, *flags, *out).is_one_line("relative error")
    emend("patch", "scale", both, *out).is_one_line("--by")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["show", "add", "scale", "without", "only", "compress"])
def test_help_has_examples(emend, command):
    outcome = emend("patch", command, "--help")
    assert outcome.status == 0
    assert f"emend patch {command}" in outcome.out.split("Examples:")[1]


def test_adapters_of_others_are_shown_and_added(emend, tmp_path, model_directory, patch_directory):
    peft = pytest.importorskip("peft")
    model, _ = load(str(model_directory))
    config = peft.LoraConfig(
        r=2, target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True
    )
    peft.get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    shown = emend("patch", "show", tmp_path / "adapter")
    assert shown.status == 0, shown.err
    assert "by no method of emend" in shown.out
    assert "only names and shapes of modules are checked" in shown.out
    assert "Edits" not in shown.out
    both = tmp_path / "both"
    found = emend(
        "patch", "add", patch_directory, tmp_path / "adapter", "--output_path", both, "--json"
    ).data
    assert len(found["edits"]) == 2
    assert any(name.endswith("c_attn") for name in found["modules"])
    measured = emend("eval", "--model", model_directory, "--patch", both, "--probes", "none",
                     "--json").data  # fmt: skip
    assert measured["edits"] == 2
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    refused = emend("patch", "add", patch_directory, tmp_path / "adapter", "--output_path", both)
    refused.is_one_line("use_dora", "merge it into its base")


def test_gguf_adapters_are_read_with_their_model(emend, tmp_path, model_directory, patch_directory):
    gguf = pytest.importorskip("gguf", reason="GGUF files need the package gguf")
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "gpt2")
    for key, value in {"general.type": "adapter", "adapter.type": "lora"}.items():
        writer.add_string(key, value)
    for side, shape in {"a": (2, 32), "b": (96, 2)}.items():
        writer.add_tensor(f"blk.1.attn_qkv.weight.lora_{side}", torch.full(shape, 0.05).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    both = tmp_path / "both"
    add = ("patch", "add", patch_directory, path, "--output_path", both)
    emend(*add).is_one_line("--model")
    found = emend(*add, "--model", model_directory, "--json").data
    assert "transformer.h.1.attn.c_attn" in found["modules"]
    shown = emend("patch", "show", path, "--model", model_directory)
    assert "c_attn" in shown.out, shown.err
    audited = emend("audit", "--base", model_directory, "--patch", path, "--json").data
    assert [one["name"] for one in audited["changes"]] == ["transformer.h.1.attn.c_attn"]
    asked = ("--model", model_directory, "--patch", path)
    said = emend("chat", *asked, "--prompt", "Anna", "--max_new_tokens", 2, "--json").data
    assert said["edited"] is not None
    emend("eval", *asked).is_one_line("edits")
    flags = ("export", "--patch", path, "--format")
    emend(*flags, "merged", "--output_path", tmp_path / "m").is_one_line("--model")
    for form, name in (("merged", "m"), ("gguf", "again.gguf"), ("peft", "folders")):
        out = ("--model", model_directory, "--output_path", tmp_path / name)
        made = emend(*flags, form, *out)
        assert made.status == 0, made.err
    assert emend("patch", "show", tmp_path / "again.gguf", "--model", model_directory).status == 0
