"""Files that people bring, through the commands that take --edits."""

from __future__ import annotations

import io
import json
import sys

import pytest

from emend import datasets
from emend.datasets import read_edits


@pytest.fixture
def counterfact(tmp_path):
    """Three records in CounterFact's layout, of which the second cannot be read."""
    example = next(one for one in datasets.formats() if one.name == "counterfact").example
    records = [json.loads(json.dumps({**example, "case_id": case})) for case in range(3)]
    records[1]["requested_rewrite"]["target_new"]["str"] = ""
    records[2]["requested_rewrite"]["subject"] = "Tom Ast"
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps(records))
    return path


def test_published_records_are_edited_and_measured_and_what_is_left_out_is_said(
    emend, model_directory, counterfact, tmp_path
):
    """Fault B8."""
    patch = tmp_path / "patch"
    flags = ("--model", model_directory, "--edits", counterfact)
    outcome = emend(
        "edit", *flags, "--output_path", patch, "--limit", 2, "--set", "steps=1", "--json"
    )
    assert outcome.data["edits"] == 2
    assert f"read 2 edits from {counterfact} (CounterFact)" in outcome.err
    assert "warning: 1 problems: these records are not read" in outcome.err
    assert "[1].requested_rewrite.target_new.str is empty" in outcome.err
    measured = emend("eval", *flags, "--patch", patch, "--json").data
    assert measured["edits"] == 2
    assert "neighborhood" in json.dumps(measured)


def test_a_ledger_takes_published_records_and_standard_input(
    emend, counterfact, tmp_path, monkeypatch
):
    """Faults B8 and B9."""
    ledger = tmp_path / "facts.db"
    assert emend("ledger", "init", ledger).status == 0
    added = emend("ledger", "add", ledger, "--edits", counterfact, "--json").data["added"]
    assert [one["id"] for one in added] == ["counterfact-0", "counterfact-2"]

    class Input:
        buffer = io.BytesIO(b"prompt,subject,target\n{} was born in,Ana Bel,Paris\n")

    monkeypatch.setattr(sys, "stdin", Input)
    outcome = emend("ledger", "add", ledger, "--edits", "-", "--json")
    assert len(outcome.data["added"]) == 1
    assert outcome.err == ""


def test_our_own_form_is_refused_where_a_record_cannot_be_read(emend, tmp_path):
    path = tmp_path / "edits.csv"
    path.write_text("prompt,subject,target\n{} is,a,b\n{} was,,c\n")
    emend("ledger", "init", tmp_path / "facts.db")
    outcome = emend("ledger", "add", tmp_path / "facts.db", "--edits", path)
    outcome.is_one_line(f"{path}:3: subject is missing")


@pytest.mark.parametrize("ending", ["jsonl", "json", "yaml", "csv", "tsv"])
def test_convert_writes_our_form(emend, counterfact, tmp_path, ending):
    out = tmp_path / f"edits.{ending}"
    result = emend("convert", counterfact, out, "--json").data
    assert (result["edits"], result["format"]) == (2, "counterfact")
    assert "target_new.str is empty" in result["unreadable"][0]
    assert read_edits(out) == read_edits(counterfact, unreadable="skip")
    assert emend("convert", counterfact, out, "--strict").status == 2
    again = emend("convert", out, out)
    assert "2 edits written to" in again.out
    assert f"read 2 edits from {out} (emend)" in again.err


def test_convert_keeps_the_first_of_edits_that_conflict_where_asked(emend, tmp_path):
    path = tmp_path / "edits.jsonl"
    lines = [
        {"prompt": "{} is", "subject": subject, "target": target}
        for subject, target in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out.jsonl"
    assert emend("convert", path, out, "--json").data["edits"] == 3
    result = emend("convert", path, out, "--distinct", "--json").data
    assert (result["edits"], len(result["conflicting"])) == (2, 1)
    assert [edit.target for edit in read_edits(out)] == ["x", "x"]
    assert "1 that conflict" in emend("convert", path, out, "--distinct").out


def test_datasets_are_listed_and_each_example_is_what_is_read(emend, tmp_path):
    listed = emend("datasets", "--json").data["datasets"]
    assert {"counterfact", "zsre", "knowedit", "easyedit", "mquake", "emend", "lab"} <= {
        one["name"] for one in listed
    }
    assert "counterfact" in emend("datasets").out
    for one in listed:
        shown = emend("datasets", one["name"], "--json").data
        assert emend("datasets", one["name"]).status == 0
        assert bool(shown["example"]) == (one["file"] != "drawn")
        if one["file"] == "read":
            path = tmp_path / "example.json"
            path.write_text(json.dumps([shown["example"]]))
            assert read_edits(path)
    emend("datasets", "counterfacts").is_one_line("did you mean 'counterfact'?")


def test_a_file_is_checked_whole(emend, tmp_path):
    good = {"prompt": "{} was born in", "subject": "Ana Bel", "target": "Paris"}
    path = tmp_path / "edits.jsonl"
    path.write_text(json.dumps(good))
    found = emend("datasets", "check", path, "--json")
    assert (found.status, found.data["edits"], found.data["problems"]) == (0, 1, [])
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, "subject": " "}))
    found = emend("datasets", "check", path)
    assert found.status == 1
    assert "records not read: 1" in found.out
    assert "edits.jsonl:2: subject" in found.out
    emend("datasets", "check").is_one_line("check has no file")
    emend("datasets", "zsre", path).is_one_line("expected nothing")
