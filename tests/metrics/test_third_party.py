"""Measures of third parties: evaluated, shown, gated and swept like those of emend."""

from __future__ import annotations

import sys

import pytest
from tests.plugin import declare
from tests.tiny import tiny_model

import emend
from emend import metrics
from emend.ledger import Ledger, check, parse_suite
from emend.report import view_of, write

MODULE = """
from emend.metrics import Metric, Question


def _ask(edit):
    return [Question(edit.text, new_tokens=4)]


def _judge(question, before, after):
    return {"shortness": (1.0, float(len(after.text) < 100))}


brevity = Metric("brevity", "answers stay short", _ask, _judge, headline="shortness")
verbosity = Metric(
    "verbosity", "letters", _ask, lambda q, b, a: {"letters": (len(b.text), len(a.text))},
    headline="letters", unit="letters",
)
silence = Metric("silence", "asks nothing", lambda edit: [], _judge)
plainly = Metric("plainly", "a number", _ask, lambda q, b, a: {}, unit="points",
                 summarize=lambda records, timing: {"value": len(records)})
grudge = Metric("grudge", "a share", _ask, lambda q, b, a: {},
                summarize=lambda records, timing: {"after": 0.5})
"""
NAMES = ["brevity", "grudge", "plainly", "silence", "verbosity"]
EDIT = emend.Edit("{} was born in", "Marie Curie", "Paris", id="one")


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "their_metrics.py").write_text(MODULE)
    points = "".join(f"{name} = their_metrics:{name}\n" for name in NAMES)
    declare(tmp_path, "emend.metrics", points)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_metrics", None)


def patched(model, tokenizer):
    return emend.edit(model, tokenizer, [EDIT], method="ft", steps=1)


def test_they_are_evaluated_and_shown(theirs, tmp_path):
    """Fault 18: KeyError 'exact_match'."""
    model, tokenizer = tiny_model("gpt2")
    with patched(model, tokenizer).applied(model):
        report = emend.evaluate(model, tokenizer, [EDIT])
    assert {*NAMES} < set(report.summary)
    brevity = report.summary["brevity"]
    assert (brevity["after"], brevity["n"], brevity["headline"]) == (1.0, 1, "shortness")
    assert report.summary["verbosity"]["unit"] == "letters"
    assert report.summary["silence"]["after"] is None
    assert metrics.Report.load(report.save(tmp_path / "saved")).summary == report.summary
    cells = [tuple(row) for row in view_of(report).tables()[0].rows]
    assert ("brevity", "1", "100.0%", "100.0%", "–", "–") in cells
    assert any(row[0] == "verbosity" and "%" not in row[3] for row in cells)
    page = write({"tiny": report}, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "shortness" in page
    assert "letters" not in page


def test_they_gate(theirs, tmp_path):
    model, tokenizer = tiny_model("gpt2")
    wanted = {"metrics": {"brevity": 1.0, "silence": 0.5, "reliability": 0.0}}
    suite = parse_suite({**wanted, "method": "ft", "settings": {"steps": 1}})
    with Ledger.create(tmp_path / "facts.db") as ledger:
        ledger.add([EDIT])
        gate = check(ledger, model, tokenizer, suite)
    passed = {one.name: one.passed for one in gate.checks}
    assert passed == {
        "metrics.brevity": True,
        "metrics.silence": False,
        "metrics.reliability": True,
    }
    with pytest.raises(emend.errors.BrokenFile, match="verbosity"):
        parse_suite({"metrics": {"verbosity": 0.5}})


def test_they_do_not_disturb_a_sweep(theirs):
    model, tokenizer = tiny_model("gpt2")
    found = emend.sweep(model, tokenizer, [EDIT], "ft", layers=[1], settings={"steps": 1})
    assert found.best is not None
