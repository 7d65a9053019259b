"""`emend vector` and `emend combine`: what they print, write and refuse."""

from __future__ import annotations

import json

import pytest
from tests.arithmetic.checkpoints import save_base, save_tuned

from emend.cli import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base and two vectors."""
    folder = tmp_path_factory.mktemp("arithmetic")
    base = save_base(folder / "base")
    for seed, name in enumerate("ab"):
        tuned = save_tuned(base, folder / f"tuned_{name}", seed, rank=2)
        assert (
            run(
                [
                    "vector",
                    "--base",
                    str(base),
                    "--tuned",
                    str(tuned),
                    "--output_path",
                    str(folder / name),
                ]
            )
            == 0
        )
    (folder / "plain.txt").write_text("The capital of France is Paris.\n\nLyon is in France.")
    return folder


def call(capsys, *words):
    status = run([str(word) for word in words])
    return status, *capsys.readouterr()


def test_a_patch_with_its_error(folder, capsys, tmp_path):
    given = (
        "--base",
        folder / "base",
        "--tuned",
        folder / "tuned_a",
        "--output_path",
        tmp_path / "p",
    )
    status, out, _ = call(capsys, "vector", *given, "--rank", 1)
    assert status == 0
    assert "relative error of the patch: " in out
    status, out, _ = call(capsys, "vector", *given, "--rank", 2, "--json")
    found = json.loads(out)
    assert found["kind"] == "patch"
    assert 0 <= found["error"] < 1e-4


def test_a_formula_with_a_tuned_scale_and_a_curve(folder, capsys, tmp_path):
    given = (
        *("combine", "a + b", "--model", folder / "base", "--output_path", tmp_path / "m"),
        *("--vector", f"a={folder / 'a'}", "--vector", f"b={folder / 'b'}"),
        *("--tune", "scale", "--goal", "addition", "--curve", tmp_path / "c.html"),
        *("--target", f"perplexity={folder / 'plain.txt'}"),
    )
    status, out, _ = call(capsys, *given, "--json")
    assert status == 0
    found = json.loads(out)
    points = found["tuning"]["points"]
    assert len(points) == 21
    best = min(points, key=lambda one: next(iter(one["targets"].values())))
    assert found["tuning"]["scale"] == best["scale"]
    assert "<svg" in (tmp_path / "c.html").read_text()
    log = tmp_path / "m.tuning.jsonl"
    before = log.read_text()
    status, out, _ = call(capsys, *given)  # goes on from its log, and replaces its own result
    assert status == 0
    assert log.read_text() == before
    assert "best mean of the target metrics" in out
    assert {path.name for path in tmp_path.iterdir()} == {"m", "c.html", "m.tuning.jsonl"}


def test_negation_by_edits(folder, capsys, tmp_path):
    edit = {"prompt": "{} is in", "subject": "Lyon", "target": "France"}
    (tmp_path / "edits.jsonl").write_text(json.dumps(edit))
    status, out, err = call(
        capsys,
        *("combine", "(-a)", "--model", folder / "base", "--output_path", tmp_path / "m"),
        *("--vector", f"a={folder / 'a'}", "--tune", "scale", "--goal", "negation", "--json"),
        *("--target", f"accuracy={tmp_path / 'edits.jsonl'}"),
        *("--control", f"perplexity={folder / 'plain.txt'}"),
    )
    assert status == 0, err
    tuning = json.loads(out)["tuning"]
    kept = [one["scale"] for one in tuning["points"] if one["control"] <= tuning["bound"]]
    assert tuning["scale"] == max(kept)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vector", "--base", "x"], "--output_path"),
        (["vector", "--base", "x", "--output_path", "o"], "expected one of --tuned and --adapter"),
        (["combine", "a", "--output_path", "o"], "expected a formula with --model and --vector"),
        (
            ["combine", "a", "--model", "x", "--vector", "a", "--output_path", "o"],
            "expected NAME=PATH",
        ),
        (
            ["combine", "a", "--config", "m.yaml", "--output_path", "o"],
            "both --config and a formula are given",
        ),
        (
            ["combine", "a", "--goal", "negation", "--output_path", "o"],
            "--goal is given without --tune scale",
        ),
        (["combine", "a", "--tune", "rank", "--output_path", "o"], "--tune is 'rank'"),
        (["combine", "a", "--tune", "scale", "--output_path", "o"], "--tune has no --goal"),
        (["combine", "--config", "none.yaml", "--output_path", "o"], "there is no file none.yaml"),
    ],
)
def test_misuse_is_one_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("perplexity", "names no file"),
        ("bleu=plain.txt", "the metric is 'bleu', expected one of perplexity"),
        ("accuracy=none.jsonl", "there is no file none.jsonl"),
        ("accuracy=plain.jsonl", "plain.jsonl"),
    ],
)
def test_metrics_that_are_not_there_are_refused(
    folder, capsys, tmp_path, monkeypatch, target, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.jsonl").write_text("no edits")
    status, _, err = call(
        capsys,
        *("combine", "a", "--model", folder / "base", "--output_path", "m"),
        *("--vector", f"a={folder / 'a'}", "--tune", "scale", "--goal", "addition"),
        *("--target", target),
    )
    assert status == 2
    assert said in err
    assert not (tmp_path / "m").exists()
