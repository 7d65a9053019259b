from __future__ import annotations

import json


def test_a_table_and_the_setting_to_take(emend, tmp_path, model_directory, edits_file):
    flags = ("sweep", "--model", model_directory, "--edits", edits_file, "--layers", "0,2")
    flags = (*flags, "--set", "steps=2", "--output_path", tmp_path / "out")
    outcome = emend(*flags)
    assert outcome.status == 0, outcome.err
    for word in ("layer=0", "layer=2", "score", "neighborhood", "each edited alone"):
        assert word in outcome.out
    found = emend(*flags, "--json").data
    assert f"--set layer={found['best']['layer']}" in outcome.out
    assert found["edits"] == 2
    assert {row["setting"]["layer"] for row in found["rows"]} == {0, 2}
    lines = (tmp_path / "out" / "sweep.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["setting"] for line in lines] == [{"layer": 0}, {"layer": 2}]


def test_facts_are_edited_together_or_alone(emend, model_directory, edits_file):
    flags = ("sweep", "--model", model_directory, "--edits", edits_file, "--layers", "-1", "--json")
    flags = (*flags, "--limit", 1, "--set", "steps=2")
    assert not emend(*flags).data["together"]
    assert emend(*flags, "--together").data["together"]
    memit = emend(*flags, "--method", "memit", "--width", 2).data
    assert memit["together"]
    assert memit["rows"][0]["setting"] == {"layers": [2, 3]}
    assert not emend(*flags, "--method", "memit", "--alone").data["together"]


def test_mistakes(emend, tmp_path, model_directory, edits_file):
    flags = ("sweep", "--model", model_directory)
    emend(*flags).is_one_line("no edits are given", "--edits")
    given = (*flags, "--edits", edits_file)
    emend(*given, "--layers", "first").is_one_line("--layers is 'first'", "0,1,2")
    emend(*given, "--layers", "0,9").is_one_line("4 blocks")
    emend(*given, "--method", "rmoe").is_one_line("did you mean 'rome'?")
    emend(*given, "--set", "layer=2").is_one_line("swept too")
    emend(*given, "--set", "clmap=2").is_one_line("did you mean 'clamp'?")
    emend(*given, "--output_path", edits_file).is_one_line("expected a directory")
