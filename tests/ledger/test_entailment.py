"""What follows from edits, and what becomes of it in a ledger."""

from __future__ import annotations

import pytest

from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput
from emend.lab.language import RELATION_BY_NAME
from emend.ledger import Ledger, entail, expand, lab_rules, parse_rules

RULES = {
    "relations": {
        "spouse": {
            "prompts": ["{} is married to"],
            "phrase": "the spouse of {}",
            "inverse": "spouse",
            "vacant": "nobody",
        },
        "birthplace": {"prompts": ["{} was born in"], "phrase": "the birthplace of {}"},
    },
    "compositions": [{"first": "spouse", "then": "birthplace", "prompts": ["What is {}?"]}],
    "aliases": {"Ana Bel": ["Dr Bel"]},
}
WEDDING = Edit("{} is married to", "Ana Bel", "Carl Dorn", id="w", original="Fen Gard")
BIRTH = Edit("{} was born in", "Carl Dorn", "Paris", id="b", relation="birthplace")


def said(derived):
    return {(each.rule, each.edit.text, each.edit.target) for each in derived}


def test_inverse_alias_composition_and_who_is_left_alone():
    found = entail(WEDDING, parse_rules(RULES), known=[BIRTH])
    assert said(found.derived) == {
        ("inverse", "Carl Dorn is married to", "Ana Bel"),
        ("vacant", "Fen Gard is married to", "nobody"),
        ("composition", "What is the birthplace of the spouse of Ana Bel?", "Paris"),
        ("alias", "Dr Bel is married to", "Carl Dorn"),
    }
    assert all(each.edit.id.startswith("w/") for each in found.derived)


@pytest.mark.parametrize(("probability", "count"), [(0.9, 1), (0.5, 0)])
def test_the_model_is_believed_only_where_it_is_sure(probability, count):
    rules = parse_rules(RULES)
    found = entail(WEDDING, rules, ask=lambda _: ("Rome", probability))
    hops = [each for each in found.derived if each.rule == "composition"]
    assert [each.edit.target for each in hops] == ["Rome"] * count
    assert any("not sure" in each.reason for each in found.skipped) is not bool(count)


def test_what_follows_goes_with_its_parent(tmp_path):
    with Ledger.create(tmp_path / "facts.db") as ledger:
        ledger.add([WEDDING, BIRTH])
        proposed = expand(ledger, parse_rules(RULES)).proposed
        assert {entry.status for entry in proposed} == {"proposed"}
        assert {entry.parent for entry in proposed} == {"w"}
        assert len(ledger.active()) == 2
        assert not expand(ledger, parse_rules(RULES)).proposed
        ledger.accept(*(entry.id for entry in proposed))
        assert len(ledger.active()) == 6
        ledger.revert("w")
        assert [edit.id for edit in ledger.active()] == ["b"]


def test_every_mistake_of_a_file_is_one_line():
    relation = {"prompts": ["no place"], "inverse": "spous"}
    with pytest.raises(BrokenFile) as caught:
        parse_rules({"relations": {"spouse": relation}, "composition": []}, "rules.yaml")
    assert "composition is an unknown field" in caught.value.problems[0]
    assert "no {}" in caught.value.problems[1]
    with pytest.raises(InvalidInput, match="depth is 0"):
        entail(WEDDING, parse_rules(RULES), depth=0)


def test_the_rules_of_the_lab_speak_its_language():
    for name, relation in lab_rules().relations.items():
        there = RELATION_BY_NAME[name]
        assert set(relation.wordings) <= set(there.statements)
        assert relation.phrase == there.phrase
        assert relation.inverse in (None, there.inverse)
