"""`emend erase`: patches, attacks, a merged checkpoint, and what is refused."""

from __future__ import annotations

import json

import pytest

from emend import load_patch
from emend.lab import shipped_world

LAB = ("erase", "--model", "lab/gptneo")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two facts that the lab's models know, and one that they do not."""
    world = shipped_world()
    facts = [one for one in world.facts.values() if one.relation == "birthplace"][:2]
    lines = [
        {
            "prompt": "{} was born in",
            "subject": one.subject,
            "original": one.object,
            "target": world.other_objects(one)[0],
        }
        for one in facts
    ]
    lines.append({**lines[0], "original": "Nowhere", "prompt": "{} comes from"})
    path = tmp_path_factory.mktemp("erase") / "secrets.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_defences_are_compared_by_attacks(emend, file, tmp_path):
    given = ("--edits", file, "--output_path", tmp_path, "--set", "steps=8", "--json")
    names = ("--defence", "error_injection,fact_erasure", "--attack", "greedy,sampling")
    found = emend(*LAB, *given, *names).data
    assert set(found["defences"]) == {"error_injection", "fact_erasure"}
    erased = found["defences"]["fact_erasure"]["erased"]
    assert [one["known"] for one in erased] == [True, True, False]
    assert len(found["attacks"]["states"]["before"]["nothing_to_erase"]) == 1
    rates = {
        state: one["attacks"]["greedy"]["rate"]["share"]
        for state, one in found["attacks"]["states"].items()
    }
    assert rates["before"] == 1 and rates["fact_erasure"] < 1
    assert load_patch(tmp_path / "fact_erasure").config["aim"]["name"] == "fact_erasure"
    assert (tmp_path / "defences.md").is_file()


def test_a_checkpoint_is_merged_and_a_table_printed(emend, file, tmp_path):
    merged = tmp_path / "merged"
    given = ("--edits", file, "--output_path", tmp_path / "patch", "--set", "steps=8")
    done = emend(*LAB, *given, "--defence", "error_injection", "--merged", merged)
    assert done.status == 0, done.err
    assert "2 of 3" in done.out and "nothing to erase" in done.out
    assert (merged / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "all", "--budget", "0"], "--budget is 0, expected at least 1"),
        (["--defence", "all", "--merged", "m"], "--merged is given with 6 defences, expected one"),
        (["--report", "a.html"], "--report is given without --attack"),
        (["--defence", "none"], "'none'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(emend, file, tmp_path, words, message):
    emend(*LAB, "--edits", file, "--output_path", tmp_path / "p", *words).is_one_line(message)
