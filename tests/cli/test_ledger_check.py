"""`emend ledger check`: its exit status is what a CI server goes by."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from tests.cli.conftest import EDIT, PROBES

from emend.ledger import Ledger
from emend.patches import load_patch

STEPS = ("--set", "steps=2")
HOLDS = {
    "name": "nightly",
    "method": "memit",
    "settings": {"steps": 2},
    "metrics": {"reliability": 0, "generalization": 0},
    "must_not_change": {"at_least": 0, "probes": [{"prompt": "Lyon is in"}]},
    "perplexity": {"at_most_increase": 10, "file": "general.txt"},
}
MISSED = {
    "must_change": {"probes": [{"prompt": "Marie Curie was born in", "answers": ["Nowhere"]}]},
}


@pytest.fixture
def ledger(emend, tmp_path):
    path = tmp_path / "facts.db"
    (tmp_path / "general.txt").write_text("Lyon is in France.\nTom plays the violin.\n", "utf-8")
    (tmp_path / "edits.jsonl").write_text(json.dumps({**EDIT, "probes": PROBES}) + "\n", "utf-8")
    assert emend("ledger", "init", path).status == 0
    assert emend("ledger", "add", path, "--edits", tmp_path / "edits.jsonl").status == 0
    return path


@pytest.fixture
def check(emend, tmp_path, ledger, model_directory):
    def call(suite, *flags):
        path = tmp_path / "suite.json"
        path.write_text(json.dumps(suite), encoding="utf-8")
        flags = ("--model", model_directory, "--suite", path, *STEPS, *flags)
        return emend("ledger", "check", ledger, *flags)

    return call


def test_a_suite_that_holds(check, tmp_path, ledger):
    out = tmp_path / "gate"
    found = check(HOLDS, "--output_path", out, "--author", "me", "--json").data
    names = ["metrics.reliability", "metrics.generalization", "must_not_change", "perplexity"]
    assert [one["name"] for one in found["checks"]] == names
    assert found["passed"]
    assert json.loads((out / "results.json").read_text("utf-8")) == found
    assert load_patch(out / "patch").config["steps"] == 2
    assert (out / "edits" / "records.jsonl").exists()
    (suite,) = ElementTree.parse(out / "junit.xml").getroot()
    assert [case.get("name") for case in suite.findall("testcase")] == names
    assert suite.get("failures") == "0"
    with Ledger.open(ledger) as book:
        (measured,) = book.measurements(found["build"])
        assert (measured.suite, measured.results["passed"]) == ("nightly", True)
        assert [event.author for event in book.log() if event.what == "measured"] == ["me"]


def test_a_suite_that_falls_short(check, tmp_path, ledger):
    out = tmp_path / "gate"
    outcome = check({**HOLDS, **MISSED}, "--output_path", out)
    assert outcome.status == 1
    assert outcome.err.count("Traceback") == 0
    assert "MISSED" in outcome.out
    assert "1 of 5 checks missed" in outcome.out
    assert "must_change: 'Marie Curie was born in'" in outcome.out
    failures = ElementTree.parse(out / "junit.xml").findall(".//failure")
    assert [one.get("message") for one in failures] == [
        "found 0.0%, expected >= 100% (base: 0.0%, measured on 1)"
    ]
    assert "Nowhere" in failures[0].text
    assert not json.loads((out / "results.json").read_text("utf-8"))["passed"]
    as_json = check(MISSED, "--json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["passed"] is False
    with Ledger.open(ledger) as book:
        assert [one.results["passed"] for one in book.measurements()] == [False, False]


def test_misuse_is_told_before_anything_is_built(check, emend, tmp_path, ledger, model_directory):
    broken = {**HOLDS, "metrics": {"reliabilty": 1}, "perplexity": {"file": "none.txt"}}
    outcome = check(broken)
    assert (outcome.status, outcome.out) == (2, "")
    first, *lines = outcome.err.splitlines()
    assert first.endswith(": 3 problems")
    for line, place in zip(
        lines, ("metrics", "perplexity.at_most", "perplexity.file"), strict=True
    ):
        assert f"suite.json:1: {place}" in line
    check({**HOLDS, "settings": {"steps": "many"}}).is_one_line("steps", "'many'")
    check(HOLDS, "--method", "mmit").is_one_line("mmit", "did you mean")
    check(HOLDS, "--output_path", tmp_path / "general.txt").is_one_line("is a file")
    flags = ("--model", model_directory, "--suite")
    emend("ledger", "check", ledger, *flags, tmp_path / "no.yaml").is_one_line("no.yaml")
    emend("ledger", "check", tmp_path / "no.db", *flags, tmp_path / "s.json").is_one_line("no.db")
    with Ledger.open(ledger) as book:
        assert not book.builds()


def test_the_method_of_the_command_line_wins(check):
    found = check({"method": "memit", "metrics": {"reliability": 0}}, "--method", "rome", "--json")
    assert found.data["method"] == "rome"
