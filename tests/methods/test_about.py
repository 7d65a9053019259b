"""What methods say of themselves, read from their sources and as they are imported."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from tests.tiny import tiny_model

import emend
from emend import methods
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._about import About, read_about
from emend.methods._method import WITHOUT_SUBJECT

NAMES = methods.registry().names()
OWN = '''
from emend.methods._method import method

@method(title="Mine", paper="Nobody 2026", when="never", continues="joint", order_invariant=True)
def mine(session):
    """Do nothing."""
'''


@pytest.mark.parametrize("name", NAMES)
def test_source_tells_what_the_import_tells(name):
    """Fault 30: the list is read from sources; each must say what the method itself says."""
    found = methods.registry().source(name)
    assert found is not None
    read, loaded = read_about(*found), methods.registry().get(name)
    assert read is not None, "not read from its source: its decorator holds more than literals"
    for field in dataclasses.fields(About):
        assert getattr(read, field.name) == getattr(loaded, field.name), field.name
    assert read.is_memory == loaded.is_memory


def test_a_source_is_read(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    said = About("mine", "Mine", "Nobody 2026", "never", "joint", order_invariant=True)
    assert read_about(path, "mine") == said
    path.write_text(OWN.replace("emend.methods._method", "emend.methods"))
    assert read_about(path, "mine") == said
    path.write_text(OWN.replace("import method", "import method as m").replace("@method", "@m"))
    assert read_about(path, "mine") == said


@pytest.mark.parametrize(
    "content",
    [
        OWN.replace("emend.methods._method", "other.place"),
        OWN.replace('"Mine"', "TITLE"),
        OWN.replace('title="Mine", ', ""),
        OWN.replace("order_invariant", "something_else"),
        OWN.replace("def mine", "def other"),
        OWN.replace("@method", "@wrapped\n@method"),
        OWN + "\nmine = changed(mine)\n",
        OWN + "\nif True:\n    mine = 1\n",
        OWN + "\nfrom elsewhere import mine\n",
        "def mine(:",
        "",
    ],
)
def test_what_a_source_does_not_tell_is_left_to_the_import(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_text(content)
    assert read_about(path, "mine") is None


def test_methods_of_others_are_listed_without_their_import(tmp_path):
    """A third party's method is one file too; one whose source does not tell is imported."""
    plain = OWN.replace("from emend", "raise_if_run = 1 / 0\nfrom emend")
    (tmp_path / "theirs.py").write_text(plain)
    information = tmp_path / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[emend.methods]\nforeign = theirs:mine\n")
    code = (
        "import sys; from emend import methods; said = methods.about()['foreign'];"
        "assert (said.title, said.continues) == ('Mine', 'joint');"
        "assert not {'torch', 'theirs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=_path_with(tmp_path))


def _path_with(directory):
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{before}"}


def test_a_method_itself_serves_as_its_name():
    """Fault 29: `emend.edit(method=<a Method>)` was an AttributeError."""
    model, tokenizer = tiny_model("gpt2")
    edit = Edit("{} was born in", "Marie Curie", "Paris")
    ft = methods.registry().get("ft")
    patch = emend.edit(model, tokenizer, [edit], method=ft, steps=1)
    assert patch.method == "ft"
    found = emend.sweep(model, tokenizer, [edit], method=ft, layers=[1], settings={"steps": 1})
    assert (found.method, len(found.rows)) == ("ft", 1)
    for strange in (3, None, methods.about()["ft"]):
        with pytest.raises(InvalidInput, match="expected a name such as 'rome'"):
            emend.edit(model, tokenizer, [edit], method=strange)


WRITE_AT_SUBJECTS = ["alphaedit", "emmet", "memit", "pmet", "rome"]


@pytest.mark.parametrize("prompt", ["{}", " {}. ", "“{}”"])
@pytest.mark.parametrize("name", WRITE_AT_SUBJECTS)
def test_a_statement_as_its_own_subject_is_refused(name, prompt):
    """Fault B13: the edit missed and changed another fact."""
    model, tokenizer = tiny_model("gpt2")
    edit = Edit(prompt, "The capital of France is", "Lyon")
    with pytest.raises(InvalidInput, match=r"needs no subject \(ft, ultraedit, grace\)") as caught:
        methods.registry().get(name).edit(model, tokenizer, [edit])
    assert "\n" not in str(caught.value)


def test_methods_that_need_no_subject_take_it():
    about = methods.about()
    assert [name for name in NAMES if about[name].by_subject] == WRITE_AT_SUBJECTS
    assert not any(about[name].by_subject for name in WITHOUT_SUBJECT)
    model, tokenizer = tiny_model("gpt2")
    edit = Edit("{}", "The capital of France is", "Lyon")
    patch = emend.edit(model, tokenizer, [edit], method="ft", steps=1)
    with pytest.raises(InvalidInput, match="expected one that states something about its subject"):
        emend.edit(model, tokenizer, [Edit("{} is in", "Lyon", "x")], "memit", previous=patch)
