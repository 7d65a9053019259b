from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import pytest

from emend.datasets import read_edits, write_edits
from emend.edits import Edit, Probe, edit_from_record, edit_to_record
from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile
from emend.ledger import Ledger

EDITS = [
    Edit("{} was born in", "Zoë Ång", "Paris", original="Rome", relation="birthplace"),
    Edit(
        'the "{}" of',
        "日\u2028本",
        " x",
        id="1",
        probes=(Probe("one_hop", "p\nq", ("a", "b")), Probe("distracting", "p", ("a",))),
    ),
]
GOOD = '{"prompt": "{} is", "subject": "a", "target": "b"}'


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".yaml", ".yml"])
def test_what_is_written_is_read_back_equal(tmp_path, suffix):
    path = tmp_path / "deep" / f"edits{suffix}"
    write_edits(path, EDITS)
    assert read_edits(path) == EDITS
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_records_go_both_ways():
    assert [edit_from_record(edit_to_record(edit)) for edit in EDITS] == EDITS
    with pytest.raises(BrokenFile, match=r"subject is missing.*target is missing"):
        edit_from_record({"prompt": "{} is"})


def test_every_problem_is_reported_at_once_with_its_line_and_field(tmp_path):
    path = tmp_path / "edits.jsonl"
    lines = [
        GOOD,
        '{"prompt": "no place", "subjct": "a", "target": ""}',
        "",
        '{"prompt": "{} is", "subject": "b", "target": "b"',
        GOOD,
        '{"prompt": "{} is", "subject": 1984, "target": "b", "target": "c"}',
        '{"prompt": "{} is", "subject": 1984, "target": "b"}',
        "[1]",
        '{"prompt": "{} is", "subject": "c", "target": "b", "probes": [{"group": "one hop", '
        '"prompt": "x", "answers": ["y"]}, 3, {"grup": "one_hop", "prompt": "x", "answers": []}]}',
        "[" * 100_000,
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    expected = [
        (2, "subjct is an unknown field"),
        (2, "prompt 'no place' has no {}"),
        (2, "subject is missing"),
        (2, "target is empty"),
        (4, "not JSON"),
        (5, "is also on line 1"),
        (6, "field 'target' occurs twice"),
        (7, "subject is int '1984', expected text: put it in quotes"),
        (8, "the edit is a list, expected an object"),
        (9, "probes[0].group is 'one hop', expected one of rephrase, "),
        (9, "probes[1] is a number, expected an object with group, prompt, answers"),
        (9, "probes[2].grup is an unknown field"),
        (9, "probes[2].group is missing"),
        (9, "probes[2].answers has 0 entries, expected at least one"),
        (10, "too deep"),
    ]
    assert len(caught.value.problems) == len(expected)
    for problem, (line, said) in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(f"{path}:{line}: ")
        assert said in problem
        assert "\n" not in problem
    assert "did you mean 'subject'?" in str(caught.value)
    assert str(caught.value).splitlines()[1:] == list(caught.value.problems)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "' + b"x" * 10_000_000 + b'"}\n', "10,000,015 bytes, expected at most"),
        (b"\x00" * 10, "NUL"),
        (b'{"prompt": "\xff"}', "byte 0xff, expected text in UTF-8"),
        (b"", "holds no edits"),
        (b"\n \n", "holds no edits"),
        (b"null", "the edit is null, expected an object"),
    ],
)
def test_broken_bytes_give_one_line(tmp_path, content, said):
    path = tmp_path / "edits.jsonl"
    path.write_bytes(content)
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_reading_goes_on_after_a_line_that_is_too_long(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_bytes(b"x" * 3_000_000 + b"\n" + GOOD.encode() + b"\nnonsense")
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["1", "3"]


def test_the_path_itself(tmp_path):
    with pytest.raises(InvalidInput, match="is a directory"):
        read_edits(tmp_path)
    with pytest.raises(MissingFile, match="there is no file"):
        read_edits(tmp_path / "no.jsonl")
    (tmp_path / "edits.csv").touch()
    with pytest.raises(BrokenFile, match="holds no edits"):
        read_edits(tmp_path / "edits.csv")


def test_a_byte_order_mark_and_carriage_returns_do_no_harm(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n")
    assert read_edits(path) == [Edit("{} is", "a", "b")]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (f"[{GOOD},\n\n{{}}]", 3, "prompt is missing"),
        ("{}", 1, "target is missing"),
        (f"[{GOOD}\n{GOOD}]", 2, "expected ',' or ']'"),
        (f"[{GOOD},\n]", 2, "not JSON"),
        (f"[{GOOD}\n", 2, "expected ',' or ']'"),
        (f"[{GOOD}]\n3", 1, "found more after the list"),
        ("[", 1, "not JSON"),
        ("[" * 100_000, 1, "too deep"),
    ],
)
def test_json_lists(tmp_path, content, line, said):
    path = tmp_path / "edits.json"
    path.write_text(content)
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert any(
        problem.startswith(f"{path}:{line}: ") and said in problem
        for problem in caught.value.problems
    ), caught.value.problems


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (f"- {GOOD}\n- prompt: x\n  subject: 1984\n  target: no\n", 2, "subject is int '1984'"),
        (f"- {GOOD}\n- !!python/object:os.system {{}}\n- 3", 2, "not YAML"),
        (f"- {GOOD}\n- !!python/object:os.system {{}}\n- 3", 3, "the edit is a number"),
        ("a: 1", 1, "found no list"),
        ("- [\n\n", 3, "not YAML"),
        ("- \x07", 1, "not YAML: special characters"),
    ],
)
def test_yaml_lists(tmp_path, content, line, said):
    path = tmp_path / "edits.yaml"
    path.write_text(content)
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert any(
        problem.startswith(f"{path}:{line}: ") and said in problem
        for problem in caught.value.problems
    ), caught.value.problems


def test_yaml_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "edits.yaml").write_text("- 1")
    with pytest.raises(MissingExtra, match=r"pip install 'emend\[yaml\]'"):
        read_edits(tmp_path / "edits.yaml")


def test_many_problems_are_counted_and_the_first_shown(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text("x\n" * 70)
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert len(caught.value.problems) == 70
    assert str(caught.value).endswith("... and 20 more")


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "directory.jsonl").mkdir()
    with pytest.raises(InvalidInput, match="no edits"):
        write_edits(tmp_path / "edits.jsonl", [])
    with pytest.raises(InvalidInput, match="occurs twice"):
        write_edits(tmp_path / "edits.jsonl", [EDITS[0], EDITS[0]])
    with pytest.raises(InvalidInput, match="expected one of"):
        write_edits(tmp_path / "edits.txt", EDITS)
    with pytest.raises(InvalidInput, match="is a directory"):
        write_edits(tmp_path / "directory.jsonl", EDITS)
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "edits.jsonl"
    write_edits(path, EDITS[:1])
    before = path.read_bytes()
    broken = Edit("{} is", "a", "b")
    object.__setattr__(broken, "relation", object())  # cannot be written as JSON
    with pytest.raises(TypeError):
        write_edits(path, [broken])
    assert path.read_bytes() == before


def test_jsonl_holds_only_what_is_set(tmp_path):
    write_edits(tmp_path / "edits.jsonl", [Edit("{} is", "a", "b", id="x")])
    line = (tmp_path / "edits.jsonl").read_text()
    assert json.loads(line) == {"id": "x", "prompt": "{} is", "subject": "a", "target": "b"}


def _nasty_texts():
    """Every character that YAML, JSON or Python treat apart, alone, at the ends and in pairs."""
    odd = [chr(code) for code in (*range(1, 0x20), *range(0x7E, 0xA2), 0xAD, 0x61C)]
    odd += ["\u2028", "\u2029", "\u200b", "\u202e", "\ufeff", "\ufffd", "\ufffe", "\uffff"]
    odd += ["\ud7ff", "\ue000", "😀", "\U0010ffff", "e\u0301", "👩\u200d🚀", "巴黎", "กรุงเทพ"]
    odd += [*"'\"\\:#-?!%&*@`|>{}[],~=", "\r\n", "\n\n", ": ", " #", "- ", "\\u2028", "\\n"]
    words = ["no", "null", "~", "1e3", "0x1f", "1984", "1984-01-01", "12:30:45", ".inf", "<<", "y"]
    draw = random.Random(26)
    for text in (*odd, *words):
        yield f"a{text}b"
        yield f"a{text}"
        yield text if text.strip() else f"{text}a{text}"
    for _ in range(300):
        yield "x" + "".join(draw.choices([*odd, *"ab "], k=draw.randint(1, 12)))
    yield "word " * 100 + "\x85 end"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".yaml"])
def test_any_text_is_read_back_equal(tmp_path, suffix):
    """Fault 26 (and 20): U+0085 and its like came back from YAML as other characters."""
    texts = list(_nasty_texts())
    edits = [
        Edit(
            "{} is " + text,
            "x" + text + "x",
            text,
            original=text,
            id=f"{number}{text[:90]}.",
            relation=text,
            probes=(Probe("one_hop", text, (text, f"{text}.")),),
        )
        for number, text in enumerate(texts)
    ]
    path = tmp_path / f"edits{suffix}"
    write_edits(path, edits)
    assert read_edits(path) == edits
    if suffix == ".jsonl":
        with Ledger.create(tmp_path / "a.db") as one, Ledger.create(tmp_path / "b.db") as other:
            one.add([replace(edit, subject=f"{n}{edit.subject}") for n, edit in enumerate(edits)])
            one.export(tmp_path / "export.jsonl")
            other.import_file(tmp_path / "export.jsonl")
            assert [each.edit for each in other.entries()] == [each.edit for each in one.entries()]
