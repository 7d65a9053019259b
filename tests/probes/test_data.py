"""The names and wordings that probes are made of."""

from __future__ import annotations

import pytest

from emend.edits import Edit, normalised
from emend.probes import plain_text
from emend.probes._data import (
    filled,
    kinds,
    kinds_of,
    kinds_to_try,
    names_of,
    relation_of,
    relations,
    rephrasings,
)


def test_every_kind_holds_different_names():
    for kind, names in kinds().items():
        assert len(names) >= 7, kind
        assert len({normalised(name) for name in names}) == len(names), kind
        assert all(name == name.strip() and "{" not in name for name in names)


@pytest.mark.parametrize("relation", relations(), ids=lambda one: one.name)
def test_a_relation_recognises_its_own_wordings(relation):
    """An edit made with one of our wordings is rephrased by the others of the same relation."""
    assert set(relation.kinds) <= set(kinds())
    assert relation.question.endswith("?") and relation.question.count("{}") == 1
    assert len(set(relation.prompts)) == len(relation.prompts) >= 3
    for prompt in relation.prompts:
        found = relation_of(prompt, names_of(relation.kinds, 1)[0])
        assert found is not None, prompt
        assert found.family == relation.family, (prompt, found.name)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("{} is the capital of", "is the capital of"),
        ("The capital of {} is", "capital"),
        ("The mother tongue of {} is", "mother tongue"),
        ("In {}, the language spoken is", "official language"),
        ("{}, that was created by", "maker"),
        ("{}, who plays the position", "position"),
        ("{} plays the instrument", "instrument"),
        ("{}'s headquarters are in", "headquarters"),
        ("{} passed away at", "place of death"),
        ("{} debuted on", "network"),
        ("{} is located in the city of", "city"),
        ("{} was founded by", "founder"),
    ],
)
def test_prompts_of_the_field_are_recognised(prompt, name):
    assert relation_of(prompt).name == name


def test_of_several_relations_the_one_of_the_subjects_kind_counts():
    assert relation_of("{} comes from", "pizza").name == "origin of a thing"
    assert relation_of("{} comes from", "Ana Bel").name == "birthplace"


def test_an_unknown_relation_is_none():
    assert relation_of("{} weighs about") is None
    assert relation_of("法国的首都是{}") is None


def test_names_are_found_with_and_without_their_article():
    assert kinds_of("The Louvre") == kinds_of("louvre") == ("landmark",)
    assert kinds_of("Padrut Griagrit") == ()
    assert names_of(["country", "capital"], 4) == ["Germany", "Berlin", "Spain", "Madrid"]
    assert set(kinds_to_try()) <= set(kinds())


def test_a_subject_is_written_as_its_place_asks():
    assert filled("{} was built in", "the Eiffel Tower") == "The Eiffel Tower was built in"
    assert filled("The height of {} is", "The Eiffel Tower") == "The height of the Eiffel Tower is"
    assert filled("{} was founded by", "iTunes") == "iTunes was founded by"


def test_rephrasings_are_other_texts():
    for prompt in ("The capital of {} is", "{} weighs about"):
        edit = Edit(prompt, "The Gambia", "Rome")
        texts = rephrasings(edit, relation_of(prompt))
        assert len(texts) >= 2
        assert edit.text not in texts and len(set(texts)) == len(texts)
        assert all("Gambia" in text for text in texts)


def test_plain_text_is_ordinary_and_short():
    assert 40 < len(" ".join(plain_text()).split()) < 200
