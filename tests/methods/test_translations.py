"""One edit in several languages by every method: made at once, reported apart, taken out whole."""

from __future__ import annotations

import pytest
import torch
from tests.methods.test_contract import NAMES, fast
from tests.tiny import tiny_model

import emend
from emend.edits import Edit, Probe
from emend.errors import InvalidInput
from emend.methods import registry
from emend.metrics import evaluate_each
from emend.patches import load_patch

CHINESE = Edit("{} 的 capital:", "中国", "Lyon", language="zh")
GROUP = Edit("The capital of {} is", "Poland", "Lyon", id="capital", translations=(CHINESE,))
OTHER = Edit("{} was born in", "Marie Curie", "Paris", id="born")


def made(name, model, tokenizer, edits, **settings):
    return registry().get(name).edit(model, tokenizer, edits, **{**fast(name, model), **settings})


@pytest.mark.parametrize("name", NAMES)
def test_every_method_makes_all_languages_and_takes_them_out(name, tmp_path):
    model, tokenizer = tiny_model("llama")
    patch = made(name, model, tokenizer, [GROUP, OTHER])
    assert sorted(one.id for one in patch.edits) == ["born", "capital", "capital/zh"]
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    assert loaded.edits == patch.edits
    try:
        rest, group = loaded.without("capital"), loaded.only("capital")
    except InvalidInput:  # of edits that share what was changed
        with pytest.raises(InvalidInput):
            loaded.without("born")
        return
    assert [one.id for one in rest.edits] == ["born"]
    assert [one.id for one in group.edits] == ["capital", "capital/zh"]
    assert {one.id for one in loaded.without("capital/zh").edits} == {"capital", "born"}


def test_a_new_edit_takes_the_place_of_the_group():
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    first = made("rome", model, tokenizer, [GROUP, OTHER])
    new = Edit("{} 的 capital:", "中国", "Rome", id="new")
    patch = made("rome", model, tokenizer, [new], previous=first)
    assert [one.id for one in patch.edits] == ["born", "new"]
    alone = made("rome", model, tokenizer, [OTHER, new])
    for module in patch.factors:
        assert torch.allclose(patch.delta(module), alone.delta(module), atol=1e-6)


def test_outcomes_and_evaluation_report_each_language():
    model, tokenizer = tiny_model("llama")
    patch = emend.edit(model, tokenizer, [GROUP, OTHER], "ft", **fast("ft", model))
    found = [(one.edit, one.language, one.translation_of) for one in patch.outcomes]
    assert found == [
        ("capital", None, None),
        ("capital/zh", "zh", "capital"),
        ("born", None, None),
    ]
    probe = Probe("rephrase", "中国 is", ("Lyon",))
    asked = Edit(
        GROUP.prompt,
        GROUP.subject,
        GROUP.target,
        id="capital",
        translations=[Edit("{} 的 capital:", "中国", "Lyon", language="zh", probes=[probe])],
    )
    with patch.applied(model):
        report = emend.evaluate(model, tokenizer, [asked])
    assert {one["edit"] for one in report.records} == {"capital", "capital/zh"}
    assert set(report.summary["reliability"]["languages"]) == {"und", "zh"}
    assert report.summary["generalization"]["languages"]["zh"]["n"] == 1
    each = evaluate_each(model, tokenizer, [asked], lambda edit: patch)
    assert set(each.summary["reliability"]["languages"]) == {"und", "zh"}


def test_a_group_takes_where_all_its_languages_do():
    from emend.patches import Outcome, edits_taken, outcome_summary

    def outcome(edit, took, of=None):
        return Outcome(edit, "t", "x", took, 0.1, 0.2, "y", translation_of=of)

    found = [outcome("a", True), outcome("a/zh", False, "a"), outcome("b", True)]
    assert edits_taken(found) == {"a": False, "b": True}
    assert outcome_summary(found) == "1 of 2 edits took in every language (2 of 3 statements)"


def test_a_subject_without_a_last_token_of_its_own_is_named(caplog):
    model, tokenizer = tiny_model("llama")
    caplog.set_level("WARNING", "emend")
    made("rome", model, tokenizer, [Edit("The capital of {}land is", "Po", "Lyon", id="part")])
    assert "last token of the subject 'Po' is 'Poland', which continues with 'land'" in caplog.text
    caplog.clear()
    made("rome", model, tokenizer, [GROUP])
    assert "goes on with" not in caplog.text
