"""The demonstration, on a tiny random model and with a random patch in place of a method."""

from __future__ import annotations

import json

import pytest
from tests.patches.helpers import EDITS, random_patch
from tests.tiny import tiny_model

from emend.bench import demo


@pytest.fixture
def drawn(monkeypatch):
    """Put tiny things in the place of the lab; what was asked of them."""
    asked = {"edits": [], "models": [], "draws": [], "templates": []}

    def load(name):
        asked["models"].append(name)
        return tiny_model("gpt2", tokenizer="bytes")

    def edit(model, tokenizer, edits, method, templates=()):
        asked["edits"].append([one.id for one in edits])
        asked["templates"].append(templates)
        given = {"edits": tuple(edits), "method": method, "timing": {"per_edit": 0.25, "edits": 1}}
        return random_patch(model, "gpt2", scale=3.0, templates=("{}", "So. {}"), **given)

    def draw(name, *, limit, seed):
        asked["draws"].append((name, limit, seed))
        return list(EDITS[:limit])

    monkeypatch.setattr("emend.api.load", load)
    monkeypatch.setattr("emend.api.edit", edit)
    monkeypatch.setattr("emend.datasets.load", draw)
    return asked


def test_every_edit_is_made_alone_on_every_model(drawn):
    result = demo(["one", "two", "one"], limit=2, seed=7)
    assert drawn["draws"] == [("lab", 2, 7)]
    assert drawn["models"] == ["one", "two"]
    assert drawn["edits"] == [["one"], ["two"]] * 2
    # Contexts are sampled once for each model.
    assert drawn["templates"] == [(), ("{}", "So. {}")] * 2
    assert list(result.models) == list(result.reports) == ["one", "two"]


def test_the_object_has_before_and_after_of_every_metric_and_the_time(drawn):
    run = json.loads(json.dumps(demo(["one"], limit=2).to_dict()))["models"]["one"]
    report = demo(["one"], limit=2).reports["one"]
    measured = {name for name, entry in report.summary.items() if "before" in entry}
    assert {"reliability", "generalization", "locality", "portability"} <= measured
    assert measured <= set(run["before"])
    assert set(run["before"]) == set(run["after"])
    assert run["after"]["reliability"] == report.summary["reliability"]["after"]
    assert run["seconds_per_edit"] == 0.25


def test_examples_tell_what_was_asked_and_said(drawn):
    examples = demo(["one"], limit=2).models["one"].examples
    assert [example["asked"] for example in examples] == ["Lyon", "piano"]
    assert examples[0]["prompt"] == EDITS[0].text
    assert any(example["before"] != example["after"] for example in examples)
