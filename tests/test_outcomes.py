"""Fault B2: an edit states whether it took, in the patch, its files, the terminal and JSON."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny_model

from emend import api
from emend.cli import run
from emend.edits import Edit
from emend.metrics import verify
from emend.models import generate, score, set_start
from emend.patches import Outcome, load_patch, outcome_summary


def _edits(*subjects, prompt="{} was born in"):
    return [Edit(prompt, subject, "Paris", id=subject) for subject in subjects]


def _patch(edits=None, **settings):
    model, tokenizer = tiny_model("gpt2")
    made = api.edit(
        model, tokenizer, edits or _edits("Marie Curie", "Anna Berg"), method="ft", **settings
    )
    return model, tokenizer, made


def test_an_outcome_is_what_the_edited_model_generates():
    model, tokenizer, patch = _patch(steps=80, original=True)
    assert [one.edit for one in patch.outcomes] == ["Marie Curie", "Anna Berg"]
    for one in patch.outcomes:
        (before,) = score(model, tokenizer, [one.text], [one.target])
        with patch.applied(model):
            (after,) = score(model, tokenizer, [one.text], [one.target])
            (said,) = generate(model, tokenizer, [one.text], max_new_tokens=8)
        assert one.before == pytest.approx(torch.tensor(before.total).exp().item(), rel=1e-3)
        assert one.after == pytest.approx(torch.tensor(after.total).exp().item(), rel=1e-3)
        assert said.startswith(one.generated)
        assert one.took == said.strip().startswith("Paris")
        assert (one.reason == "") == one.took == (one.remedy == "")


def test_what_did_not_take_is_noted_with_a_reason(caplog):
    with caplog.at_level(logging.WARNING, "emend"):
        edits = _edits("Marie Curie", "Anna Berg", prompt="In 1900 {} was born in")
        _, _, patch = _patch(edits, steps=1, learning_rate=1e-9)
    assert not any(one.took for one in patch.outcomes)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        "0 of 2 edits took: 'In 1900 Marie Curie was born in' -> 'Paris': P(target)"
    )
    assert "likely reason: ft hardly moves the target here; try: " in said
    assert "and 1 more" in said


def test_a_subject_at_position_0_and_edits_of_one_subject_are_reasons():
    one = _edits("Marie Curie")
    _, _, patch = _patch(one, steps=1, learning_rate=1e-9)
    assert "no start token precedes it" in patch.outcomes[0].reason
    two = [
        Edit("In 1900 {} was born in", "Marie Curie", "Paris"),
        Edit("In 1900 {} worked for", "Marie Curie", "Rome"),
    ]
    _, _, patch = _patch(two, steps=1, learning_rate=1e-9)
    assert all("2 edits are of the subject 'Marie Curie'" in o.reason for o in patch.outcomes)


def test_a_text_that_needs_the_start_token_is_also_asked_without_it():
    model, tokenizer = tiny_model("gpt2")
    started = copy.copy(tokenizer)
    set_start(started, "<|endoftext|>")
    edits = [*_edits("Marie Curie"), Edit("In 1900 {} was born in", "Anna Berg", "Lyon")]
    patch = api.edit(model, started, edits, method="ft", steps=3)
    first, second = patch.outcomes
    with patch.applied(model):
        (bare,) = generate(model, tokenizer, [first.text], max_new_tokens=4)
    assert first.bare is not None and bare.startswith(first.bare[:4])
    assert second.bare is None
    assert patch.base["start_token"] == "<|endoftext|>"


def test_outcomes_are_saved_and_dropped_where_the_patch_changes(tmp_path):
    model, tokenizer, patch = _patch(steps=3)
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    assert loaded.outcomes == patch.outcomes
    assert loaded.card()["outcomes"] == [one.to_dict() for one in patch.outcomes]
    for changed in (2 * patch, patch.compress(rank=1)):
        assert changed.outcomes == ()
    assert verify(model, tokenizer, patch) == patch.outcomes
    memory = api.edit(model, tokenizer, _edits("Marie Curie"), method="grace", steps=3)
    assert load_patch(memory.save_pretrained(tmp_path / "memory")).outcomes == memory.outcomes


def test_the_summary_counts():
    took = Outcome("a", "t", "x", True, 0.1, 0.9, " x")
    assert outcome_summary([took]) == "1 of 1 edit took"
    assert outcome_summary([took, replace(took, edit="b", took=False)]) == "1 of 2 edits took"


def test_the_command_states_outcomes_and_strict_fails(tmp_path, capsys):
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    words = ["edit", "--model", tmp_path / "model", "--method", "ft", "--set", "steps=1"]
    words += ["--set", "learning_rate=1e-9", "--prompt", "{} was born in"]
    words += ["--subject", "Marie Curie", "--target", "Paris", "--start_token", "none"]
    words = [str(word) for word in [*words, "--output_path", tmp_path / "patch"]]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "0 of 1 edit took" in said and "likely reason: the subject begins the text" in said
    assert run([*words, "--strict", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["took"] == 0
    assert data["outcomes"][0]["remedy"] and data["outcomes"] == data["card"]["outcomes"]
    assert run(["patch", "show", str(tmp_path / "patch")]) == 0
    assert "DID NOT TAKE" in capsys.readouterr().out
