"""The dataset of docs/data-formats.md, installed as a third party's, works like those of emend."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from tests.plugin import declare
from typer.testing import CliRunner

import emend
from emend import datasets
from emend.cli import whole_app
from emend.edits import Edit, Probe

PAGE = Path(__file__).parents[2] / "docs" / "data-formats.md"
RECORDS = [
    {"country": "Peru", "new_capital": "Cusco", "questions": ["Peru's capital is"]},
    {"country": "Chad", "new_capital": "Moundou"},
    {"country": "Cuba", "questions": []},
]


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    section = PAGE.read_text(encoding="utf-8").partition("### Your own dataset")[2]
    (module,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (points,) = re.findall(r"```toml\n.*?\n(.*?)```", section, re.DOTALL)
    (tmp_path / "my_datasets.py").write_text(module)
    declare(tmp_path, "emend.datasets", points.replace('"', ""))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    yield path
    sys.modules.pop("my_datasets", None)


def test_its_files_are_recognised(theirs):
    found = datasets.read(theirs)
    assert found.format.name == "capitals"
    probe = Probe("rephrase", "Peru's capital is", ("Cusco",))
    prompt = "The capital of {} is"
    assert list(found.edits) == [
        Edit(prompt, "Peru", "Cusco", probes=(probe,)),
        Edit(prompt, "Chad", "Moundou"),
    ]
    (problem,) = found.problems.found
    assert "new_capital is missing" in problem.said
    with pytest.raises(emend.errors.BrokenFile, match="new_capital"):
        emend.read_edits(theirs)


def test_it_is_loaded_by_name(theirs):
    theirs.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[:2]))
    assert len(datasets.load("capitals", path=theirs)) == 2
    assert datasets.load("capitals", path=theirs, limit=1, seed=3) == datasets.load(
        "capitals", path=theirs, limit=1, seed=3
    )
    with pytest.raises(emend.errors.InvalidInput, match="Capitals does not ship"):
        datasets.load("capitals")


def test_its_example_is_shown_and_read(theirs, tmp_path):
    shown = CliRunner().invoke(whole_app(), ["datasets", "capitals", "--json"])
    assert shown.exit_code == 0
    example = json.loads(shown.stdout)["example"]
    (tmp_path / "one.json").write_text(json.dumps([example]))
    (edit,) = emend.read_edits(tmp_path / "one.json")
    assert (edit.text, edit.target) == ("The capital of Peru is", "Cusco")
