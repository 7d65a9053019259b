"""A GGUF file loads like a directory: converted once, kept by its content."""

from __future__ import annotations

import os
import shutil
import struct
import warnings

import pytest
import torch
from tests.gguf_files import gguf, write_gguf
from tests.models.test_loading import refusal

import emend
from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile, NotEnoughMemory
from emend.models import load
from emend.models.cached import cache_directory
from emend.models.gguf import read_header

TEXT = "Marie Curie was born in Warsaw, 2024."


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits(model, tokenizer):
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    return model(input_ids=ids).logits


@pytest.mark.parametrize("quantised", [False, True])
def test_it_is_the_model_that_was_written(tmp_path, capfd, quantised):
    path = tmp_path / "tiny.gguf"
    written, words = write_gguf(path, quantised=quantised)
    model, tokenizer = load(path)
    assert model.dtype == torch.float32
    assert not model.training
    assert model.config._name_or_path == str(path)
    assert tokenizer(TEXT).input_ids == words(TEXT).input_ids
    assert torch.allclose(logits(model, tokenizer), logits(written, words), atol=1e-5)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"emend: converting tiny.gguf to float32 (once; it is kept in {cache_directory()})"
    ]


def test_it_is_converted_once_by_content(tmp_path, capfd):
    first, moved = tmp_path / "tiny.gguf", tmp_path / "elsewhere" / "other.GGUF"
    write_gguf(first)
    once, tokenizer = load(first)
    moved.parent.mkdir()
    shutil.move(first, moved)
    capfd.readouterr()
    again, _ = load(moved)
    assert capfd.readouterr().err == ""
    assert torch.equal(logits(once, tokenizer), logits(again, tokenizer))
    write_gguf(moved, quantised=True)  # another content under the same name
    other, _ = load(moved)
    assert "converting" in capfd.readouterr().err
    assert not torch.equal(logits(once, tokenizer), logits(other, tokenizer))


def test_what_is_kept_can_be_read_by_whoever_may_read_the_cache(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    load(tmp_path / "tiny.gguf")
    (folder,) = (one for one in cache_directory().iterdir() if one.is_dir())
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        (folder / "config.json").stat().st_mode & 0o777
    }


def test_merged_weights_are_saved(tmp_path):
    """Fault B14: transformers' bare ValueError, where it had loaded the model from GGUF itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tmp_path / "tiny.gguf"
    write_gguf(path, quantised=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    words = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for model, tokenizer in ((theirs, words), load(path)):
        edits = [emend.Edit("{} was born in", subject="Anna Berg", target=" Lyon")]
        patch = emend.edit(model, tokenizer, edits, method="rome", steps=3)
        noted = model.config.to_dict().get("quantization_config")
        patch.save_merged(model, tokenizer, tmp_path / "merged")
        assert model.config.to_dict().get("quantization_config") == noted
        with patch.applied(model):
            expected = logits(model, tokenizer)
        merged, tokenizer = load(tmp_path / "merged")
        assert torch.allclose(logits(merged, tokenizer), expected, atol=1e-4)
        shutil.rmtree(tmp_path / "merged")


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "tiny.gguf"
    assert "no file" in refusal(MissingFile, path)
    assert "no file" in refusal(MissingFile, "tiny.gguf")
    path.write_bytes(b"PK" + bytes(100))
    assert "no GGUF file" in refusal(BrokenFile, path)
    write_gguf(path, general_type="adapter")
    assert "'adapter'" in refusal(InvalidInput, path)
    assert not any(one.is_dir() for one in cache_directory().iterdir())


@pytest.mark.parametrize("kept", [4, 10, 30, 1000, 0.5, 0.99])
def test_a_file_that_is_cut_short(tmp_path, kept):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    assert str(path) in refusal(BrokenFile, path)


def test_a_version_and_an_architecture_that_are_not_read(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + struct.pack("<I", 9) + content[8:])
    assert "version 9" in refusal(BrokenFile, path)
    writer = gguf.GGUFWriter(path, "no-such-architecture")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "no-such-architecture" in refusal(BrokenFile, path)


def test_the_header_tells_the_size(tmp_path):
    written, _ = write_gguf(tmp_path / "tiny.gguf", quantised=True)
    header = read_header(tmp_path / "tiny.gguf")
    assert header.architecture == "qwen2"
    assert header.parameters == sum(one.numel() for one in written.parameters())


def test_too_little_room_is_said_before_the_work(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    usage = shutil._ntuple_diskusage(1000, 999, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "EMEND_CACHE" in refusal(NotEnoughMemory, tmp_path / "tiny.gguf")


def test_without_the_package_gguf(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "emend[gguf]" in refusal(MissingExtra, tmp_path / "tiny.gguf")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(tmp_path, cache):
    """Fault B6: the work goes on without a cache, with one warning."""
    cache.mkdir()
    cache.chmod(0o500)
    _goes_on_without(tmp_path)


def test_a_cache_whose_place_is_taken_by_a_file(tmp_path, cache):
    """Fault B6: the work goes on without a cache, with one warning."""
    cache.write_text("a file")
    _goes_on_without(tmp_path)


def _goes_on_without(tmp_path):
    written, words = write_gguf(tmp_path / "tiny.gguf")
    with pytest.warns(UserWarning, match="EMEND_CACHE"):
        model, tokenizer = load(tmp_path / "tiny.gguf")
    assert torch.allclose(logits(model, tokenizer), logits(written, words), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(tmp_path / "tiny.gguf")


def test_a_directory_with_a_gguf_file_alone(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf")
    assert str(folder / "tiny.gguf") in refusal(MissingFile, folder)


def test_a_broken_cache_is_told_from_a_broken_directory(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    load(tmp_path / "tiny.gguf")
    (weights,) = cache_directory().glob("*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    line = refusal(BrokenFile, tmp_path / "tiny.gguf")
    assert f"remove {weights.parent}" in line
    shutil.rmtree(weights.parent)
    assert load(tmp_path / "tiny.gguf")
