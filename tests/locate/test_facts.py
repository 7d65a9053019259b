from __future__ import annotations

import json
from pathlib import Path

import pytest

from emend.datasets import write_edits
from emend.edits import Edit
from emend.errors import BrokenFile, MissingFile
from emend.locate import read_facts

PUBLISHED = Path(__file__).parents[2].parent / "shared/data/known/known_1000.json"


def test_edits_are_asked_about_their_originals(tmp_path) -> None:
    edits = [
        Edit("{} was born in", "Marie Curie", "Paris", original="Warsaw", id="a"),
        Edit("{} is", "Tom", "here", id="b"),
    ]
    for name in ("edits.jsonl", "edits.json"):
        write_edits(tmp_path / name, edits)
        assert read_facts(tmp_path / name) == [
            ("{} was born in", "Marie Curie", "Warsaw"),
            ("{} is", "Tom", None),
        ]


def test_published_facts(tmp_path) -> None:
    path = tmp_path / "known.json"
    fact = {"prompt": "Audi is owned by", "subject": "Audi", "attribute": "Volkswagen", "x": 1}
    path.write_text(json.dumps([fact]))
    assert read_facts(path) == [("Audi is owned by", "Audi", "Volkswagen")]
    for broken in ({**fact, "subject": 3}, "Audi", {"attribute": "a", "subject": "b"}):
        path.write_text(json.dumps([fact, broken]))
        with pytest.raises(BrokenFile, match=r"known\.json: fact 1: \w+ is") as caught:
            read_facts(path)
        assert len(str(caught.value).splitlines()) == 1


def test_other_files_are_refused_as_edits_are(tmp_path) -> None:
    with pytest.raises(MissingFile):
        read_facts(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("[1, 2")
    with pytest.raises(BrokenFile):
        read_facts(tmp_path / "bad.json")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published facts are not at hand")
def test_the_published_file() -> None:
    found = read_facts(PUBLISHED)
    assert len(found) == 1209
    assert all(subject in prompt for prompt, subject, _ in found)
