"""The one validator: source, line, field, what was found, what was expected, the remedy."""

from __future__ import annotations

import json

import pytest

from emend._parse import read_document
from emend._validate import Fault, Problems, Record, text_fault
from emend.datasets import read_edits
from emend.errors import BrokenFile, InvalidInput, first_line
from emend.ledger import read_rules, read_suite

RULES = {
    "relations": {
        "a b": {"prompts": ["{} is", 'of "{}"\\', "no place"]},
        "spouse": {"prompts": ["{} wed"], "inverse": "spous", "odd": 1},
    },
    "aliases": {"U.S.": ["USA", ""]},
}
LINES = {
    "relations.a b.prompts[2]": '"no place"',
    "relations.spouse.inverse": '"inverse"',
    "relations.spouse.odd": '"odd"',
    "aliases.U.S.[1]": '""',
}


def _problem_lines(path, read):
    with pytest.raises(BrokenFile) as caught:
        read(path)
    return {line.split(" ", 1)[1]: int(line.split(":")[1]) for line in caught.value.problems}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_problem_of_rules_has_its_line(tmp_path, suffix):
    yaml = pytest.importorskip("yaml")
    path = tmp_path / f"rules{suffix}"
    text = json.dumps(RULES, indent=1)
    if suffix == ".yaml":
        text = yaml.safe_dump(RULES, default_style='"', sort_keys=False)
    path.write_text(text, encoding="utf-8")
    found = _problem_lines(path, read_rules)
    assert len(found) == len(LINES)
    for place, word in LINES.items():
        (line,) = [line for said, line in found.items() if said.startswith(f"{place} ")]
        assert word in text.split("\n")[line - 1], (place, line)


def test_a_problem_of_a_suite_has_its_line_and_all_parts(tmp_path):
    path = tmp_path / "suite.json"
    path.write_text('{\n "metrics": {\n  "reliability": 2\n }\n}')
    with pytest.raises(BrokenFile) as caught:
        read_suite(path)
    said = f"{path}:3: metrics.reliability is 2, expected a number, 0 to 1: fix it"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "field 'b.c' occurs twice, expected it once"),
        ("a: [\n\n", 3, "is not YAML"),
        ("a: 1\n\x00", 2, "found a NUL byte"),
    ],
)
def test_files_that_cannot_be_read_have_the_line(tmp_path, content, line, said):
    pytest.importorskip("yaml")
    path = tmp_path / "rules.yaml"
    path.write_text(content)
    with pytest.raises(BrokenFile) as caught:
        read_document(path, "rules")
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_a_name_twice_in_yaml_edits_is_refused(tmp_path):
    """Fault 26 and its kin: YAML took the last of two targets and said nothing."""
    pytest.importorskip("yaml")
    path = tmp_path / "edits.yaml"
    path.write_text("- prompt: '{} is'\n  subject: a\n  target: b\n  target: c\n")
    with pytest.raises(BrokenFile, match=r":4: field 'target' occurs twice"):
        read_edits(path)


def test_places_of_deep_and_long_files_are_found_without_harm(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("\n[" * 500 + "]" * 500)
    document = read_document(path, "rules")
    assert document.line_of("[0][0]") == 4
    assert document.line_of("[0][0].none") == 4


def test_every_kind_of_field_is_told():
    given = {
        "a": 1,
        "b": "x",
        "c": True,
        "d": [],
        "e": None,
        "f": "no",
        "g": [3, "x"],
        "h": {"k": 1},
    }
    problems = Problems("it")
    record = Record.of(given, problems, [*given, "i"])
    record.text("a")
    record.number("b")
    record.number("c")
    record.number("i")
    record.texts("d", least=2)
    record.text("e")
    record.choice("f", ["nope", "yes"])
    record.texts("g")
    record.flag("h", False)
    record.text("i")
    assert list(record.records("g", ())) == []
    assert record.text("e", required=False) is None
    assert record.mapping("h") == {"k": 1}
    with pytest.raises(BrokenFile) as caught:
        problems.check()
    assert list(caught.value.problems) == [
        "it: a is int '1', expected text: put it in quotes",
        "it: b is a text, expected a number, 0 or more: fix it",
        "it: c is true or false, expected a number, 0 or more: fix it",
        "it: i is missing, expected a number, 0 or more: fix it",
        "it: d has 0 entries, expected 2 or more: add some",
        "it: e is null, expected text: put it in quotes",
        "it: f is 'no', expected one of nope, yes: did you mean 'nope'?",
        "it: g[0] is int '3', expected text: put it in quotes",
        "it: h is an object, expected true or false: fix it",
        "it: i is missing, expected text: add it",
        "it: g[0] is a number, expected an object: put it in braces",
        "it: g[1] is a text, expected an object: put it in braces",
    ]


def test_no_problem_is_no_error_and_a_fault_is_one_line():
    Problems("it").check()
    assert text_fault("a\u2028b") is None
    assert str(Fault("is odd", "", "")) == "is odd"
    long = Problems("it")
    long.note(Fault("x" * 10_000, "y" * 10_000, "z"), "f" * 10_000)
    with pytest.raises(BrokenFile) as caught:
        long.check()
    assert len(str(caught.value)) < 1000
    assert first_line(InvalidInput("")) == "InvalidInput"
    assert first_line(ValueError("\n one\u2028two\nthree")) == "one\u2028two"
