"""Trying layers, on tiny random models with the methods as they are."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace

import pytest
from tests.tiny import tiny_model, tiny_tokenizer

import emend
from emend import _identity, metrics
from emend.bench import Row, sweep
from emend.edits import Edit, Probe
from emend.errors import InvalidInput, NumericalFailure, UnknownName
from emend.methods import registry

EDITS = [
    Edit(
        *("{} was born in", "Marie Curie", "Paris"),
        id="first",
        probes=(
            Probe("rephrase", "The birthplace of Marie Curie is", ("Paris",)),
            Probe("neighborhood", "Tom Berg was born in", ("Lyon",)),
            Probe("relation_specificity", "Marie Curie works for", ("Nordlicht",)),
        ),
    ),
    Edit("{} plays the", "Anna Berg", "piano", id="second"),
]
SHORT = {"steps": 2, "templates": ("{}",)}


def test_score_is_the_harmonic_mean_of_what_was_measured():
    row = Row({"layer": 1}, reliability=1.0, generalization=0.5, neighborhood=0.25, locality=0.9)
    assert row.score == pytest.approx(3 / (1 + 2 + 4))
    assert Row({"layer": 1}, reliability=1.0, generalization=0.5, locality=0.5).score == 0.6
    assert Row({"layer": 1}, reliability=0.0, generalization=0.5).score == 0.0
    assert Row({"layer": 1}, error="no").score is None
    assert row.flag == "layer=1"
    assert Row({"layers": [1, 2]}).flag == "layers=1,2"


def test_the_best_is_first_and_errors_are_last():
    rows = [
        Row({"layer": 0}, error="cannot"),
        Row({"layer": 1}, reliability=0.0, locality=1.0),
        Row({"layer": 3}, reliability=1.0, neighborhood=0.8, locality=0.5),
        Row({"layer": 2}, reliability=1.0, neighborhood=0.8, locality=0.5),
        Row({"layer": 4}, reliability=1.0, neighborhood=0.8, locality=0.6),
    ]
    assert [row.setting["layer"] for row in sorted(rows, key=Row.rank)] == [4, 2, 3, 1, 0]


@pytest.mark.parametrize("method", ["rome", "ft"])
def test_each_layer_is_measured_as_by_hand_with_each_edit_alone(method):
    model, tokenizer = tiny_model("gpt2")
    settings = SHORT if method == "rome" else {"steps": 4, "learning_rate": 0.05}
    found = sweep(model, tokenizer, EDITS, method, settings=settings)
    assert not found.together
    assert len(found.rows) == 4
    for row in found.rows:
        (name, value), *_ = row.setting.items()
        value = tuple(value) if isinstance(value, list) else value
        patches = {
            one.id: emend.edit(model, tokenizer, [one], method, **settings, **{name: value})
            for one in EDITS
        }
        summary = metrics.evaluate_each(model, tokenizer, EDITS, patches).summary
        assert row.reliability == summary["reliability"]["after"]
        assert row.generalization == summary["generalization"]["after"]
        assert row.locality == summary["locality"]["after"]
        assert row.neighborhood == summary["locality"]["groups"]["neighborhood"]["after"]


def test_methods_that_solve_jointly_edit_together_in_windows():
    model, tokenizer = tiny_model("gpt2", layers=6)
    found = sweep(model, tokenizer, EDITS, "memit", layers=(1, -1), settings=SHORT)
    assert found.together
    usual = emend.edit(model, tokenizer, EDITS[:1], "memit", **SHORT).config["layers"]
    windows = [list(range(max(end - len(usual) + 1, 0), end + 1)) for end in (1, 5)]
    assert sorted(row.setting["layers"] for row in found.rows) == windows
    patch = emend.edit(model, tokenizer, EDITS, "memit", **SHORT, layers=tuple(windows[1]))
    with patch.applied(model):
        summary = metrics.evaluate(model, tokenizer, EDITS).summary
    row = next(row for row in found.rows if row.setting["layers"] == windows[1])
    assert row.reliability == summary["reliability"]["after"]
    assert row.locality == summary["locality"]["after"]
    narrow = sweep(model, tokenizer, EDITS, "memit", layers=(2,), width=1, settings=SHORT)
    assert narrow.rows[0].setting == {"layers": [2]}
    assert not sweep(
        model, tokenizer, EDITS, "memit", layers=(2,), together=False, settings=SHORT
    ).together


def test_an_interrupted_sweep_goes_on(tmp_path, monkeypatch):
    model, tokenizer = tiny_model("gpt2")
    path = tmp_path / "results" / "sweep.jsonl"
    first = sweep(model, tokenizer, EDITS, settings=SHORT, layers=(0, 1), path=path)
    with path.open("a") as file:
        file.write('{"key": "ha')  # cut off by an interruption
    tried = []
    edit = emend.api.edit

    def watched(*arguments, **options):
        tried.append(options["layer"])
        return edit(*arguments, **options)

    monkeypatch.setattr("emend.api.edit", watched)
    again = sweep(model, tokenizer, EDITS, settings=SHORT, path=path)
    assert tried == [2, 3]
    assert set(map(str, first.rows)) <= set(map(str, again.rows))
    for changed in (
        {"edits": EDITS[:1], "settings": SHORT},
        {"edits": EDITS, "settings": {**SHORT, "steps": 3}},
        {"edits": EDITS, "settings": SHORT, "together": True},
    ):
        tried.clear()
        sweep(model, tokenizer, **changed, layers=(0,), path=path)
        assert tried == [0]


@pytest.mark.parametrize(
    "change", ["default", "version", "tokenizer", "configuration", "probe", "none"]
)
def test_records_are_of_the_same_inputs_only(change, tmp_path, monkeypatch):
    """Fault 33: the key lacked defaults, versions and the tokenizer."""
    model, tokenizer = tiny_model("gpt2")
    edits, path = list(EDITS), tmp_path / "sweep.jsonl"
    settings = {"steps": 2, "templates": ("{}",)}
    sweep(model, tokenizer, edits, settings=settings, layers=(1,), path=path)
    if change == "default":
        config_type = registry().get("rome").config_type
        given = changed_default(config_type, "clamp", 0.5)
        monkeypatch.setattr(config_type.__init__, "__defaults__", given)
    elif change == "version":
        monkeypatch.setitem(_identity.VERSIONS, "sweep", 99)
    elif change == "tokenizer":
        tokenizer = tiny_tokenizer("bytes_bos")
    elif change == "configuration":
        model.config.layer_norm_epsilon = 0.1
    elif change == "probe":
        edits[0] = replace(edits[0], probes=edits[0].probes[:2])
    sweep(model, tokenizer, edits, settings=settings, layers=(-3,), path=path)
    assert len(path.read_text().splitlines()) == (1 if change == "none" else 2)


def changed_default(config_type, name, value):
    """The defaults of a method's settings with another one."""
    names = list(inspect.signature(config_type).parameters)
    defaults = list(config_type.__init__.__defaults__)
    defaults[names.index(name)] = value
    return tuple(defaults)


def test_a_layer_that_fails_is_told_and_the_others_go_on(monkeypatch):
    model, tokenizer = tiny_model("gpt2")
    edit = emend.api.edit

    def fails(*arguments, **options):
        if options["layer"] == 1:
            raise NumericalFailure("it diverged")
        return edit(*arguments, **options)

    monkeypatch.setattr("emend.api.edit", fails)
    found = sweep(model, tokenizer, EDITS, settings=SHORT, layers=(0, 1))
    assert found.rows[-1].error == "it diverged"
    assert found.best == found.rows[0]
    data = json.loads(json.dumps(found.to_dict()))
    assert data["best"] == {"layer": 0}
    assert data["rows"][0]["score"] == found.best.score


def test_misuse_is_refused_before_any_work():
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(InvalidInput, match="no edits"):
        sweep(model, tokenizer, [])
    with pytest.raises(UnknownName, match="did you mean 'rome'"):
        sweep(model, tokenizer, EDITS, "rmoe")
    with pytest.raises(UnknownName, match="clmap"):
        sweep(model, tokenizer, EDITS, settings={"clmap": 3})
    with pytest.raises(InvalidInput, match="swept too"):
        sweep(model, tokenizer, EDITS, settings={"layer": 3})
    with pytest.raises(InvalidInput, match="4 blocks"):
        sweep(model, tokenizer, EDITS, layers=(4,), settings=SHORT)
    with pytest.raises(InvalidInput, match="edits one layer"):
        sweep(model, tokenizer, EDITS, width=2, settings=SHORT)
