"""The flags that say how a model is loaded, and models that cannot be edited."""

from __future__ import annotations

import importlib.util
import json

import pytest
from tests.tiny import tiny_model


def saved(architecture, directory, **overrides):
    model, tokenizer = tiny_model(architecture, layers=3, **overrides)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_dtype_and_device_reach_the_model(emend, model_directory, edits_file, tmp_path):
    flags = ("--model", model_directory, "--edits", edits_file, "--set", "steps=3", "--json")
    patch = tmp_path / "patch"
    how = ("--dtype", "bfloat16", "--device", "cpu")
    assert emend("edit", *flags, "--output_path", patch, *how).data["edits"] == 2
    assert json.loads((patch / "emend.json").read_text(encoding="utf-8"))
    asked = ("eval", "--model", model_directory, "--patch", patch, "--json")
    assert emend(*asked, *how).data["edits"] == 2
    wrong = emend(*asked, "--dtype", "float31")
    wrong.is_one_line("float31", "bfloat16")
    emend(*asked, "--device", "cpu", "--device_map", "auto").is_one_line("device_map")
    emend(*asked, "--load_in_4bit", "--load_in_8bit").is_one_line("load_in_8bit")


def test_stats_and_sweep_load_as_they_are_told(
    emend, model_directory, edits_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    texts = tmp_path / "texts.txt"
    texts.write_text("Marie Curie was born in Warsaw.\n\n" * 4, encoding="utf-8")
    stats = ("stats", "--model", model_directory, "--texts", texts, "--layers", "1", "--json")
    sweep = ("sweep", "--model", model_directory, "--edits", edits_file, "--layers", "1")
    sweep = (*sweep, "--set", "steps=2", "--json")
    for command in (stats, sweep):
        emend(*command, "--dtype", "float31").is_one_line("float31", "bfloat16")
        emend(*command, "--device", "cpu", "--device_map", "auto").is_one_line("device_map")
        assert emend(*command, "--dtype", "bfloat16", "--device", "cpu").data
    squares = []
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("EMEND_CACHE", str(tmp_path / dtype))
        found = emend(*stats, "--dtype", dtype).data
        squares.append(found["layers"][0]["mean_square"])
    assert squares[0] != squares[1]
    assert squares[0] == pytest.approx(squares[1], rel=0.05)


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is here"
)
@pytest.mark.parametrize("flag", ["--load_in_4bit", "--load_in_8bit"])
def test_a_missing_library_is_named(emend, model_directory, edits_file, tmp_path, flag):
    given = ("--model", model_directory, "--edits", edits_file, "--output_path", tmp_path / "p")
    emend("edit", *given, flag).is_one_line("bitsandbytes", "emend[quantized]")


def test_a_mixture_of_experts_is_refused(emend, edits_file, tmp_path):
    model = saved("qwen3_moe", tmp_path / "routed")
    given = ("--edits", edits_file, "--output_path", tmp_path / "p", "--set", "steps=3")
    emend("edit", "--model", model, *given).is_one_line("Qwen3Moe", "mixture of experts")
    assert not (tmp_path / "p").exists()
    model = saved("qwen3_moe", tmp_path / "mixed", mlp_only_layers=[0, 2])
    refused = emend("edit", "--model", model, *given, "--set", "layer=1")
    refused.is_one_line("block 1", "mixture of experts", "blocks 0, 2")
    assert emend("edit", "--model", model, *given).status == 0
