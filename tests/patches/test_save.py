from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from tests.patches.helpers import MODULES, logits, random_patch, same_bits, state_bits
from tests.tiny import tiny_model

import emend._io as disk
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile
from emend.patches import Dense, load_patch


@pytest.mark.parametrize("architecture", tuple(MODULES))
def test_peft_loads_what_we_save(architecture, tmp_path, recwarn):
    peft = pytest.importorskip("peft")
    model, _ = tiny_model(architecture)
    patch = random_patch(model, architecture, layers=(0, 2, 3), ranks=(1, 7, 3))
    with patch.applied(model):
        edited = logits(model)
    patch.save_pretrained(tmp_path / "patch")
    bits = state_bits(model)
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path / "patch"))
    assert not [w for w in recwarn if "peft" in str(w.filename)]
    torch.testing.assert_close(logits(adapted), edited, atol=1e-5, rtol=0)
    assert same_bits(bits, state_bits(adapted.unload()))


@pytest.mark.parametrize("architecture", tuple(MODULES))
def test_saved_and_loaded_gives_identical_logits(architecture, tmp_path):
    model, _ = tiny_model(architecture)
    patch = random_patch(
        model,
        architecture,
        layers=(0, 2),
        ranks=(1, 4),
        config={"rate": 0.5},
        templates=("{}", "The. {}"),
        statistics={"corpus": "lab"},
        timing={"per_edit": 1.5},
    )
    patch.save_pretrained(str(tmp_path / "deep" / "patch"))
    loaded = load_patch(tmp_path / "deep" / "patch")
    with patch.applied(model):
        edited = logits(model)
    with loaded.applied(model):
        assert torch.equal(edited, logits(model))
    for name in ("method", "config", "base", "templates", "statistics", "timing"):
        assert getattr(loaded, name) == getattr(patch, name)
    assert [edit.id for edit in loaded.edits] == ["one", "two"]
    assert all(edit.probes == () for edit in loaded.edits)
    assert loaded.without("one").rank == 2  # rows keep their edits, padding is gone
    assert loaded.card()["modules"] == patch.card()["modules"]


def test_a_patch_that_changes_nothing_is_saved_without_an_adapter(tmp_path):
    model, _ = tiny_model("gpt2")
    before = logits(model)
    patch = replace(random_patch(model, "gpt2"), factors={})
    random_patch(model, "gpt2").save_pretrained(tmp_path / "patch")
    patch.save_pretrained(tmp_path / "patch")
    assert [path.name for path in (tmp_path / "patch").iterdir()] == ["emend.json"]
    loaded = load_patch(tmp_path / "patch")
    assert loaded.card() == patch.card()
    assert {one["verdict"] for one in loaded.card()["serving"]} == {"broken"}
    with loaded.applied(model):
        assert torch.equal(logits(model), before)
    with pytest.raises(InvalidInput, match="changes nothing"):
        patch.export(tmp_path / "export")
    own = tmp_path / "patch" / "emend.json"
    own.write_text(own.read_text().replace('"modules"', '"modulos"'))
    with pytest.raises(BrokenFile, match="modules"):
        load_patch(tmp_path / "patch")


def test_canonical_form(tmp_path):
    model, _ = tiny_model("gpt2")
    random_patch(model, "gpt2", layers=(2, 0), ranks=(1, 4)).save_pretrained(tmp_path / "p")
    config = json.loads((tmp_path / "p" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4
    assert isinstance(config["lora_alpha"], int)
    assert config["fan_in_fan_out"] is True
    assert config["target_modules"] == [f"transformer.h.{i}.mlp.c_proj" for i in (0, 2)]
    assert "rank_pattern" not in config
    with safe_open(tmp_path / "p" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        key = "base_model.model.transformer.h.2.mlp.c_proj.lora_{}.weight"
        assert file.get_slice(key.format("A")).get_shape() == [4, 64]
        assert file.get_slice(key.format("B")).get_shape() == [32, 4]
        assert file.get_tensor(key.format("A")).dtype == torch.float32
        assert not file.get_tensor(key.format("A"))[1:].any()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    model, _ = tiny_model("gpt2")
    patch = random_patch(model, "gpt2")
    for name in ("a", "b"):
        patch.save_pretrained(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_dense_changes_are_kept_to_the_tolerance(tmp_path):
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    name = MODULES["llama"].format(1)
    delta = 0.1 * torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    dense = replace(patch, factors={name: Dense(delta)})
    dense.save_pretrained(tmp_path / "p")
    loaded = load_patch(tmp_path / "p")
    assert float((loaded.delta(name) - delta).norm() / delta.norm()) < 1e-6
    own = json.loads((tmp_path / "p" / "emend.json").read_text())
    assert 0 < own["modules"][name]["relative_error"] < 1e-6
    with pytest.raises(InvalidInput, match="shared"):
        loaded.without("one")
    with dense.applied(model):
        edited = logits(model)
    with loaded.applied(model):
        torch.testing.assert_close(edited, logits(model), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("exchange", [True, False])
def test_an_existing_patch_is_replaced(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(disk, "_exchanged", lambda aside, target: False)
    model, _ = tiny_model("gpt2")
    random_patch(model, "gpt2", method="old").save_pretrained(tmp_path / "p")
    random_patch(model, "gpt2", method="new").save_pretrained(tmp_path / "p")
    assert load_patch(tmp_path / "p").method == "new"
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("step", ["fsync", "rename", "rename_after_moving_away"])
def test_a_failure_midway_leaves_the_old_patch(tmp_path, monkeypatch, step):
    model, _ = tiny_model("gpt2")
    random_patch(model, "gpt2", method="old").save_pretrained(tmp_path / "p")
    real, calls = os.rename, []

    def failing(*arguments, **named):
        calls.append(arguments)
        if step != "rename_after_moving_away" or len(calls) == 2:
            raise OSError("disk full")
        return real(*arguments, **named)

    monkeypatch.setattr(disk, "_exchanged", lambda aside, target: False)
    monkeypatch.setattr(disk.os, "fsync" if step == "fsync" else "rename", failing)
    with pytest.raises(OSError, match="disk full"):
        random_patch(model, "gpt2", method="new").save_pretrained(tmp_path / "p")
    monkeypatch.undo()
    assert load_patch(tmp_path / "p").method == "old"
    assert os.listdir(tmp_path) == ["p"]


def test_foreign_directories_and_files_are_refused(tmp_path):
    model, _ = tiny_model("gpt2")
    patch = random_patch(model, "gpt2")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match=r"thesis\.tex"):
        patch.save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="is a file"):
        patch.save_pretrained(tmp_path / "thesis.tex")
    with pytest.raises(InvalidInput, match="cannot make the directory"):
        patch.save_pretrained(tmp_path / "thesis.tex" / "p")
    patch.save_pretrained(tmp_path / "p")
    (tmp_path / "p" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"notes\.txt"):
        patch.save_pretrained(tmp_path / "p")
    (tmp_path / "empty").mkdir()
    patch.save_pretrained(tmp_path / "empty")
    assert load_patch(tmp_path / "empty").method == "random"


def _broken(path, what):
    if what == "missing":
        return path / "nowhere", MissingFile, "no patch at"
    if what == "file":
        return path / "emend.json", InvalidInput, "is a file"
    if what == "truncated":
        tensors = path / "adapter_model.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:-7])
        return path, BrokenFile, "cut short"
    if what == "altered":
        tensors = path / "adapter_model.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
        return path, BrokenFile, "sha256"
    if what == "no tensors":
        (path / "adapter_model.safetensors").unlink()
        return path, MissingFile, r"has no adapter_model\.safetensors"
    own = path / "emend.json"
    data = json.loads(own.read_text())
    if what == "not json":
        own.write_text("{")
        return path, BrokenFile, "not valid JSON"
    if what == "newer":
        own.write_text(json.dumps({**data, "format_version": 99}))
        return path, InvalidInput, "newer emend"
    if what == "other kind":
        own.write_text(json.dumps({**data, "kind": "telepathy"}))
        return path, InvalidInput, "telepathy.*expected weights or a memory"
    del data["edits"]
    own.write_text(json.dumps(data))
    return path, BrokenFile, "edits"


@pytest.mark.parametrize(
    "what",
    ["missing", "file", "truncated", "altered", "no tensors", "not json", "newer", "other kind",
     "lacks a field"],
)  # fmt: skip
def test_what_is_broken_is_said_in_one_line(tmp_path, what):
    model, _ = tiny_model("gpt2")
    random_patch(model, "gpt2").save_pretrained(tmp_path / "p")
    path, kind, message = _broken(tmp_path / "p", what)
    with pytest.raises(kind, match=message) as error:
        load_patch(path)
    assert isinstance(error.value, EmendError)
    assert "\n" not in str(error.value)


def test_plain_peft_adapters_load_too(tmp_path):
    peft = pytest.importorskip("peft")
    model, _ = tiny_model("llama")
    config = peft.LoraConfig(
        r=3, lora_alpha=12, target_modules=["down_proj", "q_proj"], init_lora_weights=False
    )
    adapted = peft.get_peft_model(model, config)
    expected = logits(adapted)
    adapted.save_pretrained(str(tmp_path / "a"))
    model = adapted.unload()
    with load_patch(tmp_path / "a").applied(model):
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    with pytest.raises(InvalidInput, match="use_dora"):
        load_patch(tmp_path / "a")
