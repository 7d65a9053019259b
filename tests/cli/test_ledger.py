from __future__ import annotations

import json
from pathlib import Path

import pytest

from emend import datasets

STEPS = ("--set", "steps=2")


@pytest.fixture
def ledger(emend, tmp_path):
    path = tmp_path / "facts.db"
    assert emend("ledger", "init", path).status == 0
    return path


def add(emend, ledger, target="Paris", *flags):
    given = ("--prompt", "{} was born in", "--subject", "Ana Bel", "--target", target)
    return emend("ledger", "add", ledger, *given, *flags)


def test_from_an_edit_to_a_patch_and_back(emend, tmp_path, ledger, model_directory, edits_file):
    flags = ("--edits", edits_file, "--reason", "ticket 17", "--tag", "trial", "--author", "me")
    added = emend("ledger", "add", ledger, *flags, "--json").data["added"]
    assert [entry["status"] for entry in added] == ["active"] * len(added)
    build = ("ledger", "build", ledger, "--model", model_directory, *STEPS, "--output_path")
    outcome = emend(*build, tmp_path / "patch")
    assert outcome.status == 0, outcome.err
    assert f"{len(added)} edits by memit" in outcome.out
    again = emend(*build, tmp_path / "again", "--json").data
    assert again["solved"] == 0
    assert again["patch_hash"][:16] in outcome.out
    gone = added[0]["id"]
    assert emend("ledger", "revert", ledger, gone, "--reason", "wrong").status == 0
    assert emend("ledger", "diff", ledger, "--json").data == {"in": [], "out": [gone]}
    assert f"- {gone}" in emend("ledger", "diff", ledger).out
    less = emend(*build, tmp_path / "less", "--json").data
    assert less["edits"] == len(added) - 1
    assert emend("ledger", "restore", ledger, gone).status == 0
    back = emend(*build, tmp_path / "patch", "--json").data
    assert back["patch_hash"] == again["patch_hash"]
    shown = emend("ledger", "show", ledger, gone, "--json").data
    assert shown["reason"] == "ticket 17"
    assert [event["what"] for event in shown["history"]][-2:] == ["reverted", "restored"]
    assert shown["solved"]
    assert "ticket 17" in emend("ledger", "show", ledger, gone).out
    builds = emend("ledger", "log", ledger, "--json").data["events"]
    assert sum(event["what"] == "built" for event in builds) == 4


def test_conflicts_are_refused_or_the_newer_wins(emend, ledger):
    assert add(emend, ledger).status == 0
    add(emend, ledger, "Rome").is_one_line("Paris", "Rome", "supersede")
    assert add(emend, ledger, "Rome", "--supersede").status == 0
    found = emend("ledger", "list", ledger, "--json").data["entries"]
    assert [entry["status"] for entry in found] == ["superseded", "active"]
    assert found[0]["superseded_by"] == found[1]["id"]


def test_proposals_wait(emend, ledger):
    id = add(emend, ledger, "Paris", "--proposed", "--json").data["added"][0]["id"]
    assert emend("ledger", "list", ledger, "--status", "active", "--json").data == {"entries": []}
    assert emend("ledger", "accept", ledger, id).status == 0
    assert "active" in emend("ledger", "list", ledger).out
    emend("ledger", "accept", ledger, id).is_one_line("active")


def test_ledgers_are_exchanged(emend, tmp_path, ledger):
    add(emend, ledger)
    file, other = tmp_path / "facts.jsonl", tmp_path / "other.db"
    assert emend("ledger", "export", ledger, file).status == 0
    emend("ledger", "init", other)
    assert len(emend("ledger", "import", other, file, "--json").data["imported"]) == 1
    assert "nothing was merged" in emend("ledger", "merge", other, ledger).out
    assert len(emend("ledger", "list", other, "--json").data["entries"]) == 1


def test_edits_are_written_in_an_editor(emend, tmp_path, ledger, monkeypatch):
    record = {"prompt": "{} was born in", "subject": "Ana Bel", "target": "Paris"}
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\necho '{json.dumps(record)}' >> $1\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    outcome = emend("ledger", "add", ledger)
    assert outcome.status == 0, outcome.err
    assert "Ana Bel was born in -> Paris" in outcome.out
    editor.write_text("#!/bin/sh\necho 'no edit' >> $1\n")
    outcome = emend("ledger", "add", ledger)
    assert outcome.status == 2
    assert ".jsonl" in outcome.err  # the file that was kept


def test_mistakes(emend, tmp_path, ledger, edits_file, model_directory):
    emend("ledger", "add", ledger).is_one_line("--edits FILE", "terminal")
    emend("ledger", "add", ledger, "--prompt", "{} is").is_one_line("--subject, --target")
    flags = ("--edits", edits_file, "--prompt", "{} is")
    emend("ledger", "add", ledger, *flags).is_one_line("expected one kind")
    emend("ledger", "list", tmp_path / "none.db").is_one_line("emend ledger init")
    emend("ledger", "list", edits_file).is_one_line(str(edits_file))
    emend("ledger", "list", ledger, "--status", "activ").is_one_line("active")
    emend("ledger", "show", ledger, "none").is_one_line("unknown")
    emend("ledger", "init", ledger).is_one_line(str(ledger))
    emend("ledger", "diff", ledger, "--old", "x").is_one_line("0 builds")
    build = ("ledger", "build", ledger, "--model", model_directory, "--output_path")
    emend(*build, edits_file).is_one_line("expected a directory")
    emend(*build, tmp_path / "out", "--method", "memitt").is_one_line("did you mean 'memit'?")


def test_what_follows_is_proposed_and_goes_with_its_parent(emend, tmp_path, ledger):
    rules = tmp_path / "rules.json"
    names = {"birthplace": {"prompts": ["{} was born in"]}}
    rules.write_text(json.dumps({"relations": names, "aliases": {"Ana Bel": ["Dr Bel"]}}))
    id = add(emend, ledger, "Paris", "--json").data["added"][0]["id"]
    (found,) = emend("ledger", "expand", ledger, "--rules", rules, "--json").data["proposed"]
    assert (found["subject"], found["status"], found["parent"]) == ("Dr Bel", "proposed", id)
    assert "nothing new" in emend("ledger", "expand", ledger, "--rules", rules).out
    gone = emend("ledger", "revert", ledger, id, "--json").data["reverted"]
    assert {entry["id"] for entry in gone} == {id, found["id"]}
    emend("ledger", "expand", ledger, "--rules", tmp_path / "no.json").is_one_line("no.json")


def test_what_follows_by_a_yaml_file(emend, ledger):
    rules = Path(__file__).parents[2] / "examples" / "rules.yaml"
    single = ("--prompt", "{} is married to", "--subject", "Ana Bel", "--target", "Carl Dorn")
    emend("ledger", "add", ledger, *single, "--id", "w")
    add = ("--prompt", "{} was born in", "--subject", "Carl Dorn", "--target", "Rome")
    emend("ledger", "add", ledger, *add, "--id", "b")
    found = emend("ledger", "expand", ledger, "--rules", rules, "--id", "w", "--json").data
    assert {(e["prompt"], e["subject"], e["target"]) for e in found["proposed"]} == {
        ("{} is married to", "Carl Dorn", "Ana Bel"),
        ("{} is married to", "Dr. Bel", "Carl Dorn"),
        ("Question: What is the birthplace of the spouse of {}? Answer:", "Ana Bel", "Rome"),
    }
    assert all(one["rule"] == "composition" for one in found["skipped"])  # the model was not asked


def test_what_follows_by_the_rules_of_the_lab(emend, ledger):
    edit = datasets.load("lab", limit=40, seed=3)
    (wedding,) = [one for one in edit if one.relation == "spouse"][:1]
    single = ("--prompt", wedding.prompt, "--subject", wedding.subject, "--target", wedding.target)
    emend("ledger", "add", ledger, *single, "--relation", "spouse", "--id", "w")
    found = emend("ledger", "expand", ledger, "--rules", "lab", "--accept", "--json").data
    said = {(one["subject"], one["target"].strip()) for one in found["proposed"]}
    assert (wedding.target, wedding.subject) in said
    assert {one["status"] for one in found["proposed"]} == {"active"}
    assert "nothing new follows" in emend("ledger", "expand", ledger, "--rules", "lab").out
