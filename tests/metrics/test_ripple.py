"""RippleEdits' criteria: counted by hand, and measured on the lab's facts."""

from __future__ import annotations

import json

import pytest

import emend
from emend import datasets
from emend.datasets.rippleedits import Query, RippleCase, RippleTest, load_cases, ripple_tests
from emend.errors import BrokenFile, InvalidInput
from emend.metrics import RippleReport, evaluate_ripple

EXAMPLE = datasets.format_of("rippleedits").example


def test_tests_of_a_record():
    (test,) = ripple_tests(EXAMPLE)
    assert test.criterion == "Relation_Specificity"
    assert test.queries == (Query("The gender of Al Roe is", (("male", "man"),)),)
    assert (test.needed, test.conditions) == ("any", ())
    other = {"Relation_Specifity": EXAMPLE["Relation_Specificity"]}  # as the README spells it
    assert ripple_tests(other) == [test]


def test_files_of_cases(tmp_path):
    path = tmp_path / "popular.json"
    nameless = json.loads(json.dumps(EXAMPLE))
    nameless["edit"]["prompt"] = "The name of the spouse of  is Kim Poe."
    del nameless["edit"]["original_fact"]
    path.write_text(json.dumps([EXAMPLE, nameless]))
    with pytest.warns(UserWarning, match="1 records of .* are left out: .* no subject"):
        (case,) = load_cases(path)
    assert case.edit.subject == "Al Roe"
    path.write_text(json.dumps([{"a": 1}]))
    with pytest.raises(BrokenFile, match="edit is missing"):
        load_cases(path)


def record(took, *tests):
    names = ("criterion", "counts", "passed")
    return {"id": "x", "took": took, "tests": [dict(zip(names, one, strict=True)) for one in tests]}


def test_scores_by_hand():
    """Edits that did not take, and tests that do not count, are out; edits weigh the same."""
    rs, alias = "Relation_Specificity", "Subject_Aliasing"
    report = RippleReport(
        [
            record(True, (rs, True, True), (rs, True, False), (rs, False, None)),
            record(True, (rs, True, True), (alias, False, None)),
            record(False, (rs, True, False)),
            record(True, (alias, True, False)),
        ]
    )
    found = report.summary
    assert found["success"] == 3 / 4
    assert found["criteria"][rs] == {"score": (1 / 2 + 1) / 2, "edits": 2, "tests": 3}
    assert found["criteria"][alias] == {"score": 0.0, "edits": 1, "tests": 1}
    assert found["criteria"]["Forgetfulness"] == {"score": None, "edits": 0, "tests": 0}


def test_edits_of_the_lab():
    model, tokenizer = emend.load("lab/gptneo")
    edit = datasets.load("lab", limit=1)[0]
    near = edit.probes_of("relation_specificity")[0]
    alike = Query(near.prompt, (near.answers,))
    wrong = Query(near.prompt, (("nothing of the kind",),))
    own = Query(edit.text, ((edit.target,),))
    tests = (
        RippleTest("Subject_Aliasing", (own,), "all", ()),
        RippleTest("Relation_Specificity", (wrong, alike), "any", (alike,)),
        RippleTest("Relation_Specificity", (wrong, alike), "all", ()),
        RippleTest("Forgetfulness", (alike,), "any", (wrong,)),
    )

    def make(edits):
        return emend.edit(model, tokenizer, edits, method="rome")

    report = evaluate_ripple(model, tokenizer, [RippleCase(edit, tests)], make, new_tokens=5)
    (found,) = report.records
    assert found["took"]
    assert [test["passed"] for test in found["tests"]] == [True, True, False, None]
    assert report.summary["criteria"]["Relation_Specificity"]["score"] == 0.5
    with pytest.raises(InvalidInput, match="no cases are given"):
        evaluate_ripple(model, tokenizer, [], make)
