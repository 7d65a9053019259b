"""CSV and TSV as spreadsheets write them."""

from __future__ import annotations

import io
import random
import subprocess
import sys

import pytest

from emend.datasets import read, read_edits, write_edits
from emend.edits import GROUPS, Edit, Probe
from emend.errors import BrokenFile

ANA = Edit("{} was born in", "Ana Bel", "Paris")
MIA = Edit("{} plays the", "Mia Holm", 'grand "piano"')


def put(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        (
            "a.csv",
            'prompt,subject,target\n{} was born in,Ana Bel,Paris\n{} plays the,Mia Holm,"grand '
            '""piano"""\n',
            "utf-8",
        ),
        (
            "a.CSV",
            "\ufeffPrompt;Subject;Target New\r\nAna Bel was born in;Ana Bel;Paris\r\n;;\r\n"
            'Mia Holm plays the;Mia Holm;"grand ""piano"""\r\n',
            "utf-8",
        ),
        (
            "a.tsv",
            "subject\ttarget\tprompt\nAna Bel\tParis\t{} was born in\n"
            'Mia Holm\t"grand ""piano"""\t{} plays the',
            "utf-8",
        ),
        (
            "a.txt",
            "subject\ttarget\tprompt\r\nAna Bel\tParis\t{} was born in\r\n"
            'Mia Holm\t"grand ""piano"""\t{} plays the\r\n',
            "utf-16",
        ),
        (
            "a",
            "prompt, subject, target\n{} was born in, Ana Bel, Paris\n"
            '{} plays the,Mia Holm,"grand ""piano"""\n',
            "utf-8",
        ),
    ],
)
def test_tables_in_every_way_they_are_saved(tmp_path, name, text, encoding):
    """Fault B8: `facts.csv` was answered by "rename it"."""
    found = read(put(tmp_path / name, text, encoding))
    assert found.edits == (ANA, MIA)
    assert not found.problems.found
    assert not found.left_out.found


def test_columns_of_probes_and_cells_with_newlines_and_lists(tmp_path):
    text = (
        "prompt,subject,target,rephrase,rephrase_2,Neighborhood,neighborhood answer,one_hop,"
        "one_hop_answer\n"
        '{} was born in,Ana Bel,Paris,"The birthplace\nof Ana Bel is",Ana Bel comes from,'
        'Tom Ast was born in,"[""Oslo"", ""OSL""]",Ana Bel\'s country is,France\n'
        "{} plays the,Mia Holm,piano\n"
    )
    first, second = read_edits(put(tmp_path / "a.csv", text))
    assert first.probes == (
        Probe("rephrase", "The birthplace\nof Ana Bel is", ("Paris",)),
        Probe("rephrase", "Ana Bel comes from", ("Paris",)),
        Probe("neighborhood", "Tom Ast was born in", ("Oslo", "OSL")),
        Probe("one_hop", "Ana Bel's country is", ("France",)),
    )
    assert second.probes == ()


def test_published_columns_are_recognised_in_a_table(tmp_path):
    text = (
        "case_id,prompt,target_new,subject,ground_truth,rephrase_prompt,locality_prompt,"
        "locality_ground_truth\n3,The mother tongue of Ann Berg is,Welsh,Ann Berg,Dutch,"
        "Ann Berg spoke,Jan Smit speaks,Dutch\n"
    )
    found = read(put(tmp_path / "a.csv", text))
    assert found.format.name == "easyedit"
    (edit,) = found.edits
    assert (edit.id, edit.original) == ("easyedit-3", "Dutch")
    assert [probe.group for probe in edit.probes] == ["rephrase", "neighborhood"]


@pytest.mark.parametrize(
    ("rows", "line", "said"),
    [
        ("{} is,a\n", 2, "target is missing"),
        ("{} is,a,b,c\n", 2, "has 4 cells, expected 3 as in the header"),
        ('{} was,x,y\n{} is,a,"b" c\n', 3, "is not CSV"),
        ("no place,a,b\n", 2, "has no {}"),
    ],
)
def test_rows_that_cannot_be_read_are_said_by_line(tmp_path, rows, line, said):
    path = put(tmp_path / "a.csv", f"prompt,subject,target\n{rows}")
    with pytest.raises(BrokenFile) as caught:
        read_edits(path)
    assert any(one.startswith(f"{path}:{line}: ") and said in one for one in caught.value.problems)


def test_headers_that_cannot_be_read(tmp_path):
    with pytest.raises(BrokenFile, match="occurs twice"):
        read_edits(put(tmp_path / "a.csv", "prompt,subject,target,Target\n{},a,b,c\n"))
    with pytest.raises(BrokenFile, match="a table with the columns who, what"):
        read_edits(put(tmp_path / "a.csv", "who,what\na,b\nc,d\n"))
    with pytest.raises(BrokenFile, match="neighborhood_answer is missing"):
        read_edits(put(tmp_path / "a.csv", "prompt,subject,target,neighborhood\n{},a,b,c\n"))
    found = read(put(tmp_path / "a.csv", "prompt,subject,target,rephrse\n{} is,a,b,c\n"))
    assert "did you mean 'rephrase'?" in str(found.left_out.found[0])
    found = read(put(tmp_path / "a.csv", "prompt,subject,target,object\n{} is,a,b,c\n"))
    assert found.edits[0].target == "b"
    assert "column 'object', which is 'target' under another name" in str(found.left_out.found[0])


TEXTS = ["a", " a", "a\nb", 'say "x"', '"x"', "[1]", "{}", '{"a": 1}', "[", " [", "é,;\t", '" y"']


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_as_a_table_is_read_back_equal(tmp_path, ending, seed):
    chance = random.Random(seed)
    groups = [group for family in GROUPS.values() for group in family]
    edits = [
        Edit(
            chance.choice(["{}", "{} is", ' "{}" is ', "[{}] is"]),
            chance.choice(["a", '"x"', "[1]", "{} b", "日本"]),
            chance.choice(TEXTS),
            chance.choice([None, *TEXTS]),
            f"{number}",
            chance.choice([None, *TEXTS]),
            tuple(
                Probe(
                    chance.choice(groups),
                    chance.choice(TEXTS),
                    tuple(chance.sample(TEXTS, chance.randint(1, 3))),
                )
                for _ in range(chance.randint(0, 4))
            ),
        )
        for number in range(8)
    ]
    path = tmp_path / f"edits{ending}"
    write_edits(path, edits)
    found = read_edits(path)
    assert [sorted(map(repr, one.probes)) for one in found] == [
        sorted(map(repr, one.probes)) for one in edits
    ]
    without = [(e.prompt, e.subject, e.target, e.original, e.id, e.relation) for e in edits]
    assert without == [(e.prompt, e.subject, e.target, e.original, e.id, e.relation) for e in found]


def test_standard_input_and_pipes(tmp_path, monkeypatch):
    """Fault B9: "there is no file -"."""
    line = b'{"prompt": "{} was born in", "subject": "Ana Bel", "target": "Paris"}\n'

    class Input:
        buffer = io.BytesIO(line)

    monkeypatch.setattr(sys, "stdin", Input)
    found = read("-")
    assert (found.edits, found.source) == ((ANA,), "standard input")
    script = "import emend; print(len(emend.read_edits('/dev/stdin')))"
    for text in (line, b"prompt,subject,target\n{} is,a,b\n", b"- " + line):
        done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True)
        assert done.stdout == b"1\n", done.stderr
    for text, said in ((b"", b"holds no edits"), (b"\x00\x01", b"NUL")):
        done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True)
        assert said in done.stderr
