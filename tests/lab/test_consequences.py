"""The lab's edits: every probe follows from the world by a rule."""

from __future__ import annotations

import pytest

from emend import datasets
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits, without_edited
from emend.lab.language import RELATION_BY_NAME


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    return datasets.load("lab", limit=400, seed=1)


def test_a_smaller_limit_gives_the_first_edits_of_a_larger(edits: list[Edit]) -> None:
    assert datasets.load("lab", limit=20, seed=1) == edits[:20]
    assert datasets.load("lab", limit=20, seed=2) != edits[:20]


def test_an_edit_changes_a_fact(edits: list[Edit]) -> None:
    for edit in edits:
        fact = shipped_world().get(edit.subject, edit.relation or "")
        assert fact is not None and edit.original == fact.object
        assert edit.target not in fact.objects and edit.target != edit.subject
    assert len({edit.id for edit in edits}) == len(edits)


def test_all_groups_of_probes_are_there(edits: list[Edit]) -> None:
    groups = {probe.group for edit in edits for probe in edit.probes}
    assert groups == {
        "rephrase", "subject_alias", "reverse_relation", "one_hop",
        "relation_specificity", "neighborhood", "forgetfulness", "distracting",
    }  # fmt: skip


def test_rephrasings_are_the_held_out_wordings(edits: list[Edit]) -> None:
    for edit in edits:
        fact = shipped_world().get(edit.subject, edit.relation or "")
        assert fact is not None
        held_out = {text.format(fact.subject) for text in fact.statements(seen=False)}
        assert {p.prompt for p in edit.probes if p.group == "rephrase"} == held_out
        assert edit.text not in held_out


def test_locality_probes_state_what_is_true(edits: list[Edit]) -> None:
    for edit in edits:
        for probe in edit.probes:
            if probe.group == "relation_specificity":
                truths = {v for f in shipped_world().facts_of(edit.subject) for v in f.objects}
                assert set(probe.answers) <= truths
            if probe.group == "neighborhood":
                assert edit.subject not in probe.prompt


def test_reverse_probes_only_where_the_relation_is_one_to_one(edits: list[Edit]) -> None:
    for edit in edits:
        reverse = [probe for probe in edit.probes if probe.group == "reverse_relation"]
        one_to_one = RELATION_BY_NAME[edit.relation or ""].cardinality == "one_to_one"
        assert bool(reverse) is one_to_one
        assert all(p.answers == (edit.subject,) and edit.target in p.prompt for p in reverse)


def test_a_path_is_refused() -> None:
    with pytest.raises(InvalidInput, match="leave it out"):
        datasets.load("lab", path="somewhere")


def test_what_another_edit_changes_is_no_neighbor() -> None:
    edits = draw_edits(shipped_world(), 400, seed=0)
    fewer = without_edited(edits)
    changed = {
        text.format(edit.subject)
        for edit in edits
        for text in RELATION_BY_NAME[edit.relation or ""].statements
    }
    assert [edit.id for edit in fewer] == [edit.id for edit in edits]
    left = [probe for edit in fewer for probe in edit.probes_of("locality")]
    assert 0 < len(left) < sum(len(edit.probes_of("locality")) for edit in edits)
    assert not {probe.prompt for probe in left} & changed
    assert [e.probes_of("rephrase") for e in fewer] == [e.probes_of("rephrase") for e in edits]
