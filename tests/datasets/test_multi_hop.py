"""Multi-hop instances: the lab's follow their rule, MQuAKE's files are read as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emend import datasets
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.lab import shipped_world
from emend.lab.consequences import draw_multi_hop

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mquake"
RECORD = {
    "case_id": 3,
    "requested_rewrite": [
        {
            "prompt": "{} is associated with the sport of",
            "relation_id": "P641",
            "target_new": {"str": "judo", "id": "Q1"},
            "target_true": {"str": "rugby", "id": "Q2"},
            "subject": "Nor FC",
            "question": "Which sport is Nor FC associated with?",
        }
    ],
    "questions": ["Q a", "Q b", "Q c"],
    "answer": "UK",
    "answer_alias": [],
    "new_answer": "Japan",
    "new_answer_alias": ["Nippon", ""],
    "single_hops": [],
    "new_single_hops": [
        {
            "question": "Which sport is Nor FC associated with?",
            "cloze": "Nor FC is associated with the sport of",
            "answer": "judo",
            "answer_alias": [],
        },
        {"question": "Where is judo from?", "cloze": "Judo is from", "answer": "Japan"},
    ],
}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "MQuAKE.json"
    second = json.loads(json.dumps({**RECORD, "case_id": 4}))
    path.write_text(json.dumps([RECORD, second]))
    return path


def test_lab_instances_follow_from_their_edits() -> None:
    world = shipped_world()
    changed = {}
    for one in draw_multi_hop(world, 60, seed=3):
        for edit in one.edits:
            fact = world.get(edit.subject, str(edit.relation))
            assert fact is not None
            assert edit.original == fact.object != edit.target
            # One world: an edit of a fact is the same in all instances.
            assert changed.setdefault((edit.subject, edit.relation), edit.id) == edit.id
        assert sum(hop.edited for hop in one.hops) == len(one.edits) >= 1
        assert one.hops[-1].answers == one.answers
        assert one.answers != one.old_answers
        assert len(one.questions) == 3
        for before, after in zip(one.hops, one.hops[1:], strict=False):
            assert before.answers[0] in after.cloze


def test_what_an_instance_takes_as_it_is_no_other_edits() -> None:
    instances = draw_multi_hop(shipped_world(), 90, seed=0)
    edited = {edit.text for one in instances for edit in one.edits}
    kept = {hop.cloze for one in instances for hop in one.hops if not hop.edited}
    assert not edited & kept
    assert [len(one.hops) for one in instances[:6]] == [2, 3, 4, 2, 3, 4]


def test_lab_draws_are_prefixes_and_bounded() -> None:
    world = shipped_world()
    assert draw_multi_hop(world, 30, seed=1)[:9] == draw_multi_hop(world, 9, seed=1)
    assert draw_multi_hop(world, 9, seed=2) != draw_multi_hop(world, 9, seed=1)
    with pytest.raises(InvalidInput, match="from 1 on"):
        draw_multi_hop(world, 3, lengths=())


def test_mquake_records_become_instances(file) -> None:
    first, second = datasets.load_multi_hop("mquake", path=file)
    assert (first.id, second.id) == ("mquake-3", "mquake-4")
    assert first.questions == ("Q a", "Q b", "Q c")
    assert first.answers == ("Japan", "Nippon")
    assert first.old_answers == ("UK",)
    assert [hop.edited for hop in first.hops] == [True, False]
    assert first.edits[0].text == "Nor FC is associated with the sport of"
    assert (first.edits[0].target, first.edits[0].original) == ("judo", "rugby")
    edits = datasets.load("mquake", path=file)
    assert edits == list(first.edits)  # the second record's is the same edit


def test_mquake_files_that_are_not_so_are_refused(file, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="does not ship"):
        datasets.load("mquake")
    with pytest.raises(InvalidInput, match="directory"):
        datasets.load("mquake", path=tmp_path)
    with pytest.raises(MissingFile):
        datasets.load("mquake", path=tmp_path / "none.json")
    broken = [RECORD, {key: RECORD[key] for key in RECORD if key != "questions"}, "x"]
    file.write_text(json.dumps(broken))
    with pytest.raises(BrokenFile) as caught:
        datasets.load("mquake", path=file)
    assert len(caught.value.problems) == 2
    assert "[1] cannot be read (lacks 'questions')" in caught.value.problems[0]
    for text in ("[", "{}", "[]"):
        file.write_text(text)
        with pytest.raises(BrokenFile):
            datasets.load_multi_hop("mquake", path=file)


def test_limits_and_datasets_without_questions(file, monkeypatch) -> None:
    assert len(datasets.load_multi_hop("mquake", path=file, limit=1)) == 1
    assert len(datasets.load_multi_hop("lab", limit=5)) == 5
    with pytest.raises(InvalidInput, match="limit is 0"):
        datasets.load_multi_hop("lab", limit=0)
    monkeypatch.delattr("emend.datasets.lab.multi_hop")
    with pytest.raises(InvalidInput, match=r"no multi-hop questions.*mquake"):
        datasets.load_multi_hop("lab")


@pytest.mark.skipif(not SHARED.is_dir(), reason="MQuAKE's own files are not at hand")
@pytest.mark.parametrize("name", ["MQuAKE-CF-3k-v2.json", "MQuAKE-hard.json"])
def test_mquakes_own_files(name) -> None:
    instances = datasets.load_multi_hop("mquake", path=SHARED / name)
    assert instances
    for one in instances:
        assert len(one.questions) == 3
        assert sum(hop.edited for hop in one.hops) == len(one.edits)
        assert one.hops[-1].answers[0] in one.answers
