from __future__ import annotations

import shlex

import pytest
import torch
from tests.gguf_files import write_gguf
from tests.patches.helpers import random_patch

from emend.models import load
from emend.patches import load_patch


def test_merged_is_a_checkpoint_that_answers_as_the_patch(
    emend, tmp_path, model_directory, memit_directory
):
    out, path = tmp_path / "checkpoint", memit_directory / "both"
    flags = ("export", "--patch", path, "--format", "merged", "--output_path")
    assert emend(*flags, out, "--model", model_directory, "--json").data["path"] == str(out)
    model, tokenizer = load(model_directory)
    ids = tokenizer("Marie Curie was born in", return_tensors="pt").input_ids
    with torch.no_grad(), load_patch(path).applied(model):
        expected = model(ids).logits
    merged, _ = load(out)
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-5)
    twice = (*flags, tmp_path / "twice", "--model", out)
    emend(*twice).is_one_line("hash")
    assert emend(*twice, "--allow_other_base").status == 0
    emend(*flags, path / "emend.json").is_one_line("expected a directory")


def test_what_is_printed_can_be_typed(emend, tmp_path, memit_directory):
    out = tmp_path / "it's here"
    flags = ("export", "--patch", memit_directory / "both", "--format")
    said = emend(*flags, "peft", "--output_path", out, "--base_model", "org/base").out
    (folder,) = out.iterdir()
    assert said.startswith(f"peft saved to {folder}")
    assert "vllm serve org/base --enable-lora --max-lora-rank 8" in said
    assert f"VLLM_LORA_RESOLVER_CACHE_DIR={shlex.quote(str(out))}" in said
    assert folder.name in said
    said = emend(*flags, "gguf", "--output_path", out / "p.gguf").out
    assert f"--lora {shlex.quote(str(out / 'p.gguf'))} --cache-ram 0" in said
    assert "convert_hf_to_gguf.py" in said


def test_merged_gguf_of_a_base_that_came_from_gguf(emend, tmp_path):
    model, _ = write_gguf(tmp_path / "base.gguf", architecture="llama")
    random_patch(model, "llama").save_pretrained(tmp_path / "patch")
    flags = ("export", "--patch", tmp_path / "patch", "--format", "merged-gguf")
    out = ("--output_path", tmp_path / "merged.gguf")
    emend(*flags, *out).is_one_line("did not come from a GGUF file", "--base_gguf")
    flags = (*flags, "--base_gguf", tmp_path / "base.gguf")
    emend(*flags, *out, "--quantization", "q4").is_one_line("one of f32, f16, q8_0")
    made = emend(*flags, *out, "--quantization", "q8_0", "--json").data
    assert 0 < made["rounding"]["blk.1.ffn_down.weight"] < 0.2
    assert "ollama create merged" in made["commands"][1]["text"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--format", "onnx"), "one of peft, gguf, merged, merged-gguf"),
        (("--format", "gguf", "--base_gguf", "none.gguf"), "no file none.gguf"),
    ],
)
def test_mistakes(emend, tmp_path, memit_directory, more, said):
    out = ("--output_path", tmp_path / "out.gguf")
    emend("export", "--patch", memit_directory / "both", *more, *out).is_one_line(said)
    assert not list(tmp_path.iterdir())
