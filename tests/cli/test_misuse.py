"""Every mistake of the user: exit status 2, one line, no traceback."""

from __future__ import annotations

import json
import shutil

import pytest

from emend.cli import _main

SINGLE = ("--prompt", "{} was born in", "--subject", "Marie Curie", "--target", "Paris")


@pytest.fixture
def edit(emend, tmp_path, model_directory):
    """`emend edit` on the tiny model, with further flags."""

    def call(*flags, model=model_directory):
        outcome = emend("edit", "--model", model, "--output_path", tmp_path / "out", *flags)
        assert not (tmp_path / "out").exists()
        return outcome

    return call


def test_unknown_method(edit):
    edit("--method", "rmoe", *SINGLE).is_one_line("unknown method 'rmoe'", "did you mean 'rome'?")


def test_unknown_setting(edit):
    edit("--set", "clmap=3", *SINGLE).is_one_line("'clmap'", "did you mean 'clamp'?")


def test_setting_of_the_wrong_type(edit):
    edit("--set", "clamp=high", *SINGLE).is_one_line("clamp is 'high'", "expected", "float")
    edit("--set", "clamp", *SINGLE).is_one_line("'clamp' has no value", "name=value")


def test_settings_file(edit, tmp_path):
    edit("--config", tmp_path / "no.yaml", *SINGLE).is_one_line("there is no file")
    edit("--config", tmp_path, *SINGLE).is_one_line("is a directory")
    (tmp_path / "list.yaml").write_text("- 1\n")
    edit("--config", tmp_path / "list.yaml", *SINGLE).is_one_line("holds no mapping")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    edit("--config", tmp_path / "broken.yaml", *SINGLE).is_one_line("fix the syntax")
    (tmp_path / "typo.yaml").write_text("clmap: 3\n")
    edit("--config", tmp_path / "typo.yaml", *SINGLE).is_one_line("did you mean 'clamp'?")


@pytest.mark.parametrize("name", ["lab/gptnoe", "lab/"])
def test_unknown_lab_model(edit, name):
    edit(*SINGLE, model=name).is_one_line("unknown", name.removeprefix("lab/"))


def test_model_that_is_nowhere(edit, tmp_path):
    edit(*SINGLE, model="no-such-model-here").is_one_line("no-such-model-here")
    edit(*SINGLE, model=tmp_path / "nowhere").is_one_line("nowhere")
    edit(*SINGLE, model=tmp_path).is_one_line("config.json")


def test_truncated_weights(edit, tmp_path, model_directory):
    broken = tmp_path / "broken"
    shutil.copytree(model_directory, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    edit(*SINGLE, model=broken).is_one_line("truncated", str(broken))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("--prompt", "was born in", "has no {}"),
        ("--prompt", "{} and {}", "has 2 {}"),
        ("--target", "", "target is empty"),
        ("--subject", "", "subject is empty"),
    ],
)
def test_single_edit_that_cannot_be_used(edit, field, value, said):
    flags = list(SINGLE)
    flags[flags.index(field) + 1] = value
    edit(*flags).is_one_line(said)


def test_subject_that_the_tokenizer_cannot_place(edit, tmp_path, model_directory):
    deaf = tmp_path / "deaf"
    shutil.copytree(model_directory, deaf)
    words = json.loads((deaf / "tokenizer.json").read_text(encoding="utf-8"))
    words["normalizer"] = {"type": "Replace", "pattern": {"String": "☃"}, "content": ""}
    (deaf / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")
    flags = [flag if flag != "Marie Curie" else "☃" for flag in SINGLE]
    edit(*flags, model=deaf).is_one_line("☃")


def test_neither_or_both_kinds_of_edits(edit, edits_file):
    edit().is_one_line("no edit is given", "--edits")
    edit(*SINGLE[:4]).is_one_line("expected --target")
    edit("--edits", edits_file, *SINGLE).is_one_line("both --edits and --prompt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * 10_000_000, "a line of 10,000,000 bytes"),
        (b"\x00\x01", "NUL"),
        (b"\xff", "UTF-8"),
        (b"", "holds no edits"),
        (b'{"prompt": "{} is", "subject": "a"}', "target is missing"),
    ],
)
def test_broken_file_of_edits(edit, tmp_path, content, said):
    (tmp_path / "edits.jsonl").write_bytes(content)
    edit("--edits", tmp_path / "edits.jsonl").is_one_line("edits.jsonl", said)


def test_all_problems_of_a_file_are_told(edit, tmp_path):
    (tmp_path / "edits.jsonl").write_text('{"a": 1}\n\nnonsense\n')
    outcome = edit("--edits", tmp_path / "edits.jsonl")
    assert outcome.status == 2
    assert ":1: a is an unknown field" in outcome.err
    assert ":3: is not JSON" in outcome.err
    assert "Traceback" not in outcome.err


def test_paths_of_edits(edit, tmp_path):
    edit("--edits", tmp_path).is_one_line("is a directory")
    edit("--edits", tmp_path / "no.jsonl").is_one_line("there is no file")


def test_output_path_is_refused_before_any_work(emend, tmp_path, model_directory):
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        emend(*("edit", "--model", model_directory, "--output_path", path), *SINGLE).is_one_line(
            "is a file"
        )


def test_output_path_that_holds_something_else(emend, tmp_path, model_directory, monkeypatch):
    monkeypatch.delattr("emend.api.edit")  # refused before the edit is made
    (tmp_path / "thesis.txt").write_text("years of work")
    emend(*("edit", "--model", model_directory, "--output_path", tmp_path), *SINGLE).is_one_line(
        "thesis.txt"
    )
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_patches_that_cannot_be_used(emend, tmp_path, model_directory, patch_directory):
    evaluate = ("eval", "--model", model_directory, "--patch")
    emend(*evaluate, tmp_path / "nowhere").is_one_line("nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(patch_directory, broken)
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    emend(*evaluate, broken).is_one_line("broken")


def test_flags(emend):
    emend("edit", "--modle", "x").is_one_line("No such option: --modle", "emend edit --help")
    emend("edit", "--output_path", "x").is_one_line("Missing option '--model'")
    emend("eidt").is_one_line("No such command 'eidt'", "Did you mean 'edit'?")
    emend("demo", "--limit", "0").is_one_line("--limit", "1")
    emend("demo", "--limit", "many").is_one_line("--limit")
    emend("methods", "rmoe").is_one_line("did you mean 'rome'?")
    emend("lab", "card", "lab/gtp").is_one_line("unknown lab model 'lab/gtp'")
    emend("lab", "world", "--about", "Nobody Atall").is_one_line("unknown entity 'Nobody Atall'")


def test_a_defect_of_ours_shows_its_traceback(emend, monkeypatch):
    monkeypatch.setattr("emend.cli.edit.output_directory", lambda path: 1 / 0)
    outcome = emend("edit", "--model", "x", "--output_path", "y", *SINGLE)
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError" in outcome.err


def test_an_interruption_ends_with_130(emend, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("emend.cli.edit.output_directory", interrupted)
    assert emend("edit", "--model", "x", "--output_path", "y", *SINGLE).status == 130
    assert _main.run(["--version"]) == 0
