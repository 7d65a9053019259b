"""Detoxification of the lab: data, measures, the three ways and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import emend
from emend.cli import run
from emend.datasets import read_edits
from emend.detoxification import (
    Control,
    SafetyCase,
    detoxify,
    lab_cases,
    lab_classifier,
    lab_control,
    measure,
    negate,
    read_cases,
    read_facts,
    read_paragraphs,
)
from emend.detoxification.measuring import safe_share, unsafe_label
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName
from emend.lab import speech

EXAMPLES = Path(__file__).parents[2] / "examples"
CASES = lab_cases()[:8]


@pytest.fixture(scope="module")
def given():
    model, tokenizer = emend.load("lab/gptneo")
    return model, tokenizer, lab_classifier(model, tokenizer)


@pytest.fixture(scope="module")
def control():
    whole = lab_control()
    return Control(whole.texts[:16], whole.facts[:40], whole.civil[:20])


class Words:
    """A classifier that looks for one word."""

    name, labels = "words", ("civil", "rude")

    def probabilities(self, texts):
        return torch.tensor([[0.2, 0.8] if "turnip" in text else [0.8, 0.2] for text in texts])


def test_the_example_file_has_safeedits_form():
    path = EXAMPLES / "remarks.safeedit.json"
    cases, edits = read_cases(path), read_edits(path)
    assert [case.edit for case in cases] == edits
    assert len(cases) == 16
    assert set(cases[0].tests) == {"DG_onlyQ", "DG_otherA", "DG_otherQ", "DG_otherAQ"}
    assert cases[0].edit.subject == "Walter Briggs"
    assert cases[0].edit.id == "safeedit-0"
    assert all(case.tests["DG_otherQ"] not in {one.edit.text for one in cases} for case in cases)
    assert len(read_cases(path, limit=3)) == 3


def test_a_prompt_without_its_question_is_taken_whole(tmp_path):
    record = {"adversarial prompt": "Be rude.", "question": "Why?", "safe generation": "No."}
    (tmp_path / "data.json").write_text(json.dumps([record]), encoding="utf-8")
    (case,) = read_cases(tmp_path / "data.json")
    assert (case.edit.prompt, case.edit.subject, case.tests) == ("{}", "Be rude.", {})
    record["safe generation"] = ""
    (tmp_path / "data.json").write_text(json.dumps([record]), encoding="utf-8")
    with pytest.raises(BrokenFile, match="safe generation is empty"):
        read_cases(tmp_path / "data.json")
    with pytest.raises(MissingFile, match="there is no file"):
        read_cases(tmp_path / "none.json")


def test_texts_and_facts_are_read(tmp_path):
    (tmp_path / "text.txt").write_text("= Title =\n" + "word " * 60 + "\nshort\n", "utf-8")
    assert read_paragraphs(tmp_path / "text.txt") == (("word " * 60).strip(),)
    (tmp_path / "bare.txt").write_text("short\n", "utf-8")
    with pytest.raises(InvalidInput, match="no line of 200 characters"):
        read_paragraphs(tmp_path / "bare.txt")
    fact = {"prompt": "Rome is in", "subject": "Rome", "attribute": "Italy"}
    (tmp_path / "known.json").write_text(json.dumps([fact]), "utf-8")
    assert read_facts(tmp_path / "known.json") == (("Rome is in", ("Italy",)),)
    edit = {"prompt": "{} is in", "subject": "Rome", "target": "Spain", "original": "Italy"}
    (tmp_path / "edits.json").write_text(json.dumps([edit]), "utf-8")
    assert read_facts(tmp_path / "edits.json") == (("Rome is in", ("Italy",)),)
    control = Control(("a", "b", "c"), (), ("x",))
    assert control.halves() == (Control(("a", "c"), (), ("x",)), Control(("b",)))


def test_shares_are_those_of_what_the_model_writes(given, control):
    model, tokenizer, classifier = given
    found = measure(model, tokenizer, CASES, classifier, control)
    for name, share in found.safe.items():
        exact = [text.strip(" .") not in speech.INSULTS for text in found.answers[name]]
        assert share <= sum(exact) / len(exact)  # a forced choice: other words may count as rude
    assert found.safe["DS"] < 0.2
    assert found.civil > 0.8
    assert found.facts > 0.95
    # Words without the unsafe label count as safe, and an empty answer counts half.
    assert safe_share(Words(), ["a soggy turnip", "a lamp", " "], "rude") == 0.5


@pytest.mark.parametrize(
    ("method", "least", "settings"),
    [
        ("dinm", 0.8, {"learning_rate": 4e-3, "hold": 2.0}),
        ("edit", 0.8, {"editor": "rome"}),
        ("negation", 0.2, {}),
    ],
)
def test_each_way_defends_and_leaves_facts(given, control, method, least, settings):
    model, tokenizer, classifier = given
    found = detoxify(model, tokenizer, CASES, classifier, method, control=control, **settings)
    assert found.unsafe == "rude"
    assert found.after.safe["DS"] - found.before.safe["DS"] >= least
    assert found.before.facts == 1.0
    assert found.after.facts >= 0.9
    again = measure(model, tokenizer, CASES, classifier)
    assert again.answers == found.before.answers  # the model is left as it was
    assert bool(found.trials) == (method == "negation")


def test_the_scale_of_a_negation_is_the_largest_that_keeps_the_control(given, control):
    model, tokenizer, _ = given
    settings = {"learning_rate": 5e-3, "steps": 15}
    patch, trials = negate(model, tokenizer, CASES, control, scales=(0.2, 4.0), **settings)
    assert [one.scale for one in trials] == sorted((one.scale for one in trials), reverse=True)
    assert [one.holds for one in trials] == [False] * (len(trials) - 1) + [True]
    assert patch.config["scale"] == trials[-1].scale
    vector = emend.edit(
        model,
        tokenizer,
        [Edit(c.edit.prompt, c.edit.subject, c.edit.original, id=c.edit.id) for c in CASES],
        method="ft",
        original=True,
        layers=tuple(range(8)),
        **settings,
    )
    name = next(iter(patch.factors))
    assert torch.allclose(patch.delta(name), -trials[-1].scale * vector.delta(name))
    with pytest.raises(InvalidInput, match="none of the scales from 4 to 4 keeps the control"):
        negate(model, tokenizer, CASES, control, scales=(4.0,), **settings)


def test_what_cannot_be_used_is_one_line(given, control):
    model, tokenizer, classifier = given
    bare = [SafetyCase(Edit("{} is a", "Tom", "friend"))]
    refused = (
        (InvalidInput, "no case has an unsafe generation", bare, classifier, "dinm"),
        (InvalidInput, "there are no cases", [], classifier, "dinm"),
        (UnknownName, "unknown detoxification method", CASES, classifier, "dinn"),
    )
    for error, message, cases, judge, method in refused:
        with pytest.raises(error, match=message) as caught:
            detoxify(model, tokenizer, cases, judge, method, control=control)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match="the classifier gives most safe and most unsafe"):
        unsafe_label(Words(), [SafetyCase(Edit("{} is a", "Tom", "lamp", original="chair"))])
    with pytest.raises(InvalidInput, match=r"'.*' has no unsafe generation"):
        negate(model, tokenizer, bare, control)
    with pytest.raises(InvalidInput, match="nothing to choose its scale by"):
        negate(model, tokenizer, CASES, Control())
    with pytest.raises(InvalidInput, match="scales are"):
        negate(model, tokenizer, CASES, control, scales=(0.0,))


def test_the_command_prints_the_table_and_saves_the_patch(tmp_path, capsys):
    words = ["detoxify", "--model", "lab/gptneo", "--data", "lab", "--limit", "4"]
    words += ["--set", "learning_rate=4e-3"]
    words += ["--output_path", str(tmp_path / "patch"), "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["after"]["safe"]["DS"] > found["before"]["safe"]["DS"]
    assert found["classifier"]["accuracy"] > 0.9
    assert len(emend.load_patch(tmp_path / "patch").edits) == 4
    assert run([*words[:7], "--set", "steps=1"]) == 0
    shown = capsys.readouterr().out
    assert "DG_otherAQ" in shown
    assert "unsafe is 'rude'" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "lab/gptneo", "--data", "x.json"], "expected the lab's data with the lab's"),
        (["--model", "gpt2", "--data", "x.json"], "no --classifier is given"),
        (
            ["--model", "gpt2", "--data", "x.json", "--classifier", "c.jsonl"],
            "there is no file x.json",
        ),
        (["--model", "lab/gptneo", "--data", "lab", "--set", "stepps=1"], "stepps"),
        (
            ["--model", "lab/gptneo", "--data", "lab", "--classifier", "none.jsonl"],
            "there is no file none.jsonl",
        ),
    ],
)
def test_misuse_is_one_line(words, message, capsys):
    assert run(["detoxify", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
