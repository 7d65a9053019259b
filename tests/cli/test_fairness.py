"""`emend fairness`: tables, JSON, and one line for what cannot be used."""

from __future__ import annotations

import json

import pytest
from tests.fairness.test_sentences import CSV, FLAT

from emend.cli import run


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_prints_pronouns_and_json(tmp_path, capsys):
    jobs = written(tmp_path / "jobs.txt", "nurse\npilot\n")
    templates = written(tmp_path / "templates.txt", "The {} said that\n")
    command = ["fairness", "--model", "lab/gptneo", "--occupations", jobs, "--templates", templates]
    assert run(command) == 0
    assert "|P(he) - P(she)|" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompts"] == 2
    assert found["before"]["gap"]["value"] > 0.3
    assert found["after"] is None


def test_measures_both_datasets(tmp_path, capsys):
    flat = written(tmp_path / "dev.json", json.dumps([FLAT]))
    pairs = written(tmp_path / "crows.csv", CSV)
    for name, path, measure in (("stereoset", flat, "icat"), ("crows_pairs", pairs, "preferred")):
        command = ["fairness", "--model", "lab/gptneo", "--data", name, path]
        assert run([*command, "--json"]) == 0
        kinds = json.loads(capsys.readouterr().out)["bias_types"]
        assert all(0 <= one["before"][measure]["value"] <= 100 for one in kinds.values())
        assert run(command) == 0
        assert "ideal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--data", "stereoset", "none.json"], "there is no file none.json"),
        (["--data", "stereotypes", "none.json"], "stereotypes"),
        (["--data", "lab", "none.json"], "holds no sentences to compare"),
        (["--scoring", "best"], "expected mean or sum"),
        (["--templates", "t.txt"], "without --occupations"),
        (["--held_out", "1"], "cannot be held out"),
    ],
)
def test_misuse_gets_one_line(flags, line, capsys):
    assert run(["fairness", "--model", "lab/gptneo", *flags]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert len(told.strip().splitlines()) == 1


def test_debias_saves_a_patch_and_measures_it(tmp_path, capsys):
    jobs = written(tmp_path / "jobs.txt", "nurse\npilot\nfarmer\ndancer\n")
    templates = written(tmp_path / "templates.txt", "The {} said that\nThe {} was late because\n")
    files = ["--occupations", jobs, "--templates", templates, "--held_out", "2"]
    patch = str(tmp_path / "patch")
    command = ["debias", "--model", "lab/gptneo", *files, "--output_path", patch]
    assert run([*command, "--set", "passes=1", "--set", "texts=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["edited"]["prompts"] == 2
    assert found["held_out"]["prompts"] == 2
    assert run(["fairness", "--model", "lab/gptneo", *files, "--patch", patch, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["after"]["gap"] == pytest.approx(found["held_out"]["after"]["gap"], abs=1e-4)
    assert run([*command, "--set", "passes=0"]) == 2
    assert "passes" in capsys.readouterr().err
    assert run([*command, "--method", "shard"]) == 2
