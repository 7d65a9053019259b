"""`emend train`: trains, goes on, edits by what it trained, and refuses in one line."""

from __future__ import annotations

import json

import pytest

from emend.cli.train import split
from emend.edits import Edit
from emend.errors import InvalidInput

FAST = ("--set", "rank=4", "--set", "batch_size=2", "--set", "validate_every=1")


@pytest.fixture
def training_file(tmp_path):
    path = tmp_path / "training.jsonl"
    lines = [
        {
            "prompt": "{} was born in",
            "subject": f"Marie {name}",
            "target": "Paris",
            "probes": [
                {"group": "rephrase", "prompt": f"Marie {name} comes from", "answers": ["Paris"]},
                {"group": "neighborhood", "prompt": "Tom Berg was born in", "answers": ["Lyon"]},
            ],
        }
        for name in ("Curie", "Berg", "Holm")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_train_then_edit(emend, model_directory, edits_file, training_file, tmp_path):
    state, patch = tmp_path / "mend", tmp_path / "patch"
    flags = ("--model", model_directory, "--edits", training_file, "--output_path", state, *FAST)
    first = emend("train", *flags, "--steps", 1)
    assert first.status == 0, first.err
    assert "step 1 of 1: loss" in first.out
    assert f"--set state={state}" in first.out
    result = emend("train", *flags, "--steps", 2, "--json").data
    assert result["training_edits"] == 2
    assert result["validation_edits"] == 1
    assert 0 <= result["validation"]["locality"] <= 1
    made = emend(
        *("edit", "--model", model_directory, "--method", "mend", "--set", f"state={state}"),
        *("--edits", edits_file, "--output_path", patch, "--json"),
    ).data
    assert made["card"]["method"] == "mend"


def test_misuse_is_one_line(emend, model_directory, edits_file, training_file, tmp_path):
    to = ("--output_path", tmp_path / "out")
    model = ("--model", model_directory)
    emend("train", *model, *to).is_one_line("--edits", "lab")
    emend("train", *model, "--edits", training_file, "--method", "rome", *to).is_one_line("rome")
    given = ("train", *model, "--edits", training_file)
    emend(*given, "--set", "ranks=3", *to).is_one_line("rank")
    emend(*given, *to, "--dtype", "float31").is_one_line("float31", "bfloat16")
    untrained = ("edit", *model, "--method", "mend", "--edits", edits_file, *to)
    emend(*untrained).is_one_line("emend train --method mend")


def test_split_shares_no_subject():
    edits = [Edit("{} was born in", f"Marie {n // 2}", "Paris", id=str(n)) for n in range(40)]
    training, validation = split(edits)
    assert len(training) == 36
    assert not {e.subject for e in training} & {e.subject for e in validation}
    with pytest.raises(InvalidInput, match="at least 2 subjects"):
        split(edits[:2])
