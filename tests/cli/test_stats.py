"""`emend stats`: key covariances collected ahead, and what it refuses."""

from __future__ import annotations

import json

import pytest
from tests.tiny import TEXT

from emend.editing import collecting, memory
from emend.patches import load_patch


@pytest.fixture
def texts_file(tmp_path):
    """A text file with some documents."""
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXT * 3), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "moments"


def test_what_it_will_take_is_told_before(emend, model_directory, texts_file, cache) -> None:
    outcome = emend("stats", "--model", model_directory, "--texts", texts_file, "--tokens", 100)
    assert outcome.status == 0, outcome.err
    before, _, after = outcome.out.partition("Key covariances of")
    assert "memory: 33 kB" in before.replace("32.8 kB", "33 kB")
    assert "for one batch" in before
    assert "disk:" in before
    assert "100" in after
    assert str(cache) in after.replace("\n", "")
    assert len(list(cache.iterdir())) == 2


def test_json_and_layers_and_settings(emend, model_directory, tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"body": text}) for text in TEXT))
    flags = ("--model", model_directory, "--texts", f"{rows}?field=body", "--json")
    found = emend("stats", *flags, "--layers", "0,-1", "--sum_dtype", "float64").data
    assert [row["layer"] for row in found["layers"]] == [0, 3]
    assert found["layers"][0]["dtype"] == "float64"
    assert found["estimate"]["sums"] == 2 * 64 * 64 * 8
    assert found["source"] == "rows.jsonl, field body"
    every = emend("stats", *flags, "--layers", "all", "--window", 16, "--batch_size", 1).data
    assert [row["layer"] for row in every["layers"]] == [0, 1, 2, 3]
    assert every["layers"][0]["tokens"] == found["layers"][0]["tokens"]


def test_several_files_and_too_few_tokens(
    emend, model_directory, texts_file, edits_file, tmp_path
) -> None:
    """Fault 8: statistics over the names of two files, 11 tokens, without a warning."""
    few = tmp_path / "few texts.txt"
    few.write_text("A short text.")
    names = f"{few},{texts_file}"
    found = emend("stats", "--model", model_directory, "--texts", names, "--json").data
    assert found["source"] == "few texts.txt; texts.txt"
    flags = ("--model", model_directory, "--edits", edits_file, "--set", "steps=1", "--json")
    for name, warned in ((names, False), (few, True)):
        output = ("--output_path", tmp_path / "patch", "--set", f"texts={name}")
        outcome = emend("edit", *flags, *output)
        statistics = load_patch(tmp_path / "patch").statistics
        assert statistics["source"].startswith("few texts.txt")
        hint = f"hold {statistics['tokens']} tokens of few texts.txt, expected 1,280"
        assert (hint in outcome.err) == warned
        assert outcome.err.count("emend: warning:") == warned


def test_editors_take_what_was_collected(
    emend, model_directory, texts_file, edits_file, tmp_path, monkeypatch
) -> None:
    emend("stats", "--model", model_directory, "--texts", texts_file)
    monkeypatch.setattr(collecting, "_collect", lambda *_: pytest.fail("collected again"))
    for method in ("memit", "rome"):
        outcome = emend(
            *("edit", "--model", model_directory, "--edits", edits_file, "--method", method),
            *("--set", f"texts={texts_file}", "--set", "steps=2"),
            *("--output_path", tmp_path / method),
        )
        assert outcome.status == 0, outcome.err
        patch = load_patch(tmp_path / method)
        assert patch.statistics["source"] == "texts.txt"
        assert patch.statistics["tokens"] > 100


def test_misuse(emend, model_directory, texts_file, monkeypatch, cache) -> None:
    stats = ("stats", "--model", model_directory)
    emend(*stats, "--texts", "nowhere.txt").is_one_line("no file nowhere.txt")
    given = (*stats, "--texts", texts_file)
    emend(*given, "--layers", "some").is_one_line(
        "--layers is 'some'", "numbers such as 0,1,2, or all"
    )
    emend(*given, "--layers", "9").is_one_line("4 blocks")
    emend(*given, "--tokens", "0").is_one_line("--tokens")
    emend(*given, "--engine", "slurm").is_one_line("engine is 'slurm'", "local or ray")
    emend(*given, "--gpus", "0.5").is_one_line("need --engine ray")
    monkeypatch.setattr(memory, "available", lambda _device: 1000)
    refused = emend(*given, "--json")
    refused.is_one_line("of memory", "1.0 kB are free", "ignore_memory")
    assert not cache.exists()
    assert emend(*given, "--json", "--ignore_memory").status == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    emend(*given, "--layers", "0", "--json").is_one_line("on disk", "EMEND_CACHE")
