"""Models load from a directory; what is wrong with one is said in one line."""

from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from tests.tiny import tiny_model

from emend.errors import (
    BrokenFile,
    EmendError,
    InvalidInput,
    MissingExtra,
    MissingFile,
    UnknownName,
)
from emend.models import load, model_fingerprint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    model, tokenizer = tiny_model("qwen3", layers=2, dtype=torch.bfloat16)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)


def refusal(error, path, **options):
    with pytest.raises(error) as caught:
        load(path, **options)
    line = str(caught.value)
    assert isinstance(caught.value, EmendError)
    assert "\n" not in line
    assert len(line) < 500
    return line


def test_a_directory(saved, capfd):
    model, tokenizer = load(saved)
    assert not model.training
    assert model.dtype == torch.bfloat16  # the checkpoint's own
    assert tokenizer.is_fast
    expected, _ = tiny_model("qwen3", layers=2, dtype=torch.bfloat16)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(input_ids=ids).logits, expected(input_ids=ids).logits)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_dtype_and_device(saved):
    assert load(str(saved), dtype="float32", device="cpu")[0].dtype == torch.float32
    assert load(saved, dtype=torch.float16)[0].dtype == torch.float16
    assert "'float31'" in refusal(InvalidInput, saved, dtype="float31")
    assert "'int8'" in refusal(InvalidInput, saved, dtype="int8")
    assert "'gpx'" in refusal(InvalidInput, saved, device="gpx")
    assert "cuda:99" in refusal(InvalidInput, saved, device="cuda:99")


def test_a_device_map(saved, tmp_path, capfd):
    pytest.importorskip("accelerate", reason="device maps need accelerate")
    plain, _ = load(saved)
    ids = torch.tensor([[5, 6, 7]])
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu",
              "model.layers.0": "cpu", "model.layers.1": "disk", "lm_head": "cpu"}  # fmt: skip
    for device_map in ("auto", "cpu", places):
        model, _ = load(saved, device_map=device_map, offload_folder=tmp_path)
        assert not model.training
        away = {each.device.type for each in model.model.layers[1].parameters()}
        assert away == {"meta" if device_map is places else "cpu"}
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        assert model_fingerprint(model) == model_fingerprint(plain)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_device_maps_that_cannot_be(saved):
    assert "expected one" in refusal(InvalidInput, saved, device="cpu", device_map="auto")
    line = refusal(InvalidInput, saved, device_map="everywhere")
    assert "'everywhere'" in line
    assert "auto" in line
    assert "cuda:99" in refusal(InvalidInput, saved, device_map="cuda:99")
    assert "both" in refusal(InvalidInput, saved, load_in_4bit=True, load_in_8bit=True)


def test_what_an_extra_brings_is_named(saved, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "emend[large]" in refusal(MissingExtra, saved, device_map="auto")
    for flag in ("load_in_4bit", "load_in_8bit"):
        line = refusal(MissingExtra, saved, **{flag: True})
        assert "emend[quantized]" in line
        assert flag in line


def test_chatter_is_silenced_for_the_call_only(saved):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(saved)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_lab_models_are_float32(saved, monkeypatch):
    def path(name):
        if name != "qwen3":
            raise UnknownName("lab model", name, ["gptneo", "qwen3"])
        return saved

    lab = SimpleNamespace(path=path)
    monkeypatch.setitem(sys.modules, "emend.lab", lab)
    monkeypatch.setattr("emend.lab", lab, raising=False)
    assert load("lab/qwen3")[0].dtype == torch.float32
    assert load("lab/qwen3", dtype="bfloat16")[0].dtype == torch.bfloat16
    assert "did you mean 'qwen3'" in refusal(UnknownName, "lab/qwen")


def test_no_such_directory(tmp_path):
    assert "no model directory" in refusal(MissingFile, tmp_path / "nowhere")
    assert "no model directory" in refusal(MissingFile, "./nowhere")


def test_a_file_instead_of_a_directory(saved):
    assert "is a file" in refusal(InvalidInput, saved / "model.safetensors")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no *.safetensors"),
        ("tokenizer", "no tokenizer.json"),
    ],
)
def test_missing_parts(copy, missing, said):
    for path in copy.glob(f"{missing}*"):
        path.unlink()
    assert said in refusal(MissingFile, copy)


@pytest.mark.parametrize("kept", [0, 4, 100, 20_000])
def test_truncated_weights(copy, kept):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "truncated" in refusal(BrokenFile, copy)


def test_broken_configuration(copy):
    config = copy / "config.json"
    config.write_text(config.read_text()[:50])
    assert str(copy) in refusal(BrokenFile, copy)
    config.write_text(json.dumps({"model_type": "no-such-architecture"}))
    assert "no-such-architecture" in refusal(BrokenFile, copy)


def test_broken_tokenizer(copy):
    (copy / "tokenizer.json").write_text("{")
    assert "tokenizer" in refusal(BrokenFile, copy)


def test_weights_that_do_not_fit(copy):
    config = json.loads((copy / "config.json").read_text())
    config["num_hidden_layers"] += 1
    config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    (copy / "config.json").write_text(json.dumps(config))
    assert "missing" in refusal(BrokenFile, copy)


def test_no_network(offline):
    line = refusal(MissingFile, "nobody/no-such-model")
    assert "nobody/no-such-model" in line
    assert "network" in line


def test_an_empty_name():
    assert "empty" in refusal(InvalidInput, " ")
