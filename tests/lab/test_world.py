"""The world follows from its seed, and its facts agree with one another."""

from __future__ import annotations

from collections import Counter

import pytest

from emend.lab.language import RELATION_BY_NAME, RELATIONS
from emend.lab.world import Fact, World, WorldSize, build_world


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


def test_a_seed_is_a_world(world: World) -> None:
    assert build_world(0) == world
    assert build_world(1).facts != world.facts


def test_sizes(world: World) -> None:
    size = WorldSize()
    assert len(set(world.entities["person"])) == size.people
    assert len(world.phones) == size.phones
    assert len(RELATIONS) >= 14
    assert {fact.relation for fact in world.facts.values()} == set(RELATION_BY_NAME)


def test_no_single_word_of_a_name_decides_who_is_meant(world: World) -> None:
    for kind in ("person", "company", "work"):
        first = Counter(name.split()[0] for name in world.entities[kind])
        last = Counter(name.split()[1] for name in world.entities[kind])
        assert sum(count > 1 for count in first.values()) > 0.8 * len(first)
        assert sum(count > 1 for count in last.values()) > 0.8 * len(last)


def test_inverses_lead_back(world: World) -> None:
    for fact in world.facts.values():
        inverse = RELATION_BY_NAME[fact.relation].inverse
        for value in fact.objects if inverse else ():
            back = world.get(value, inverse or "")
            assert back is not None and fact.subject in back.objects


def test_one_to_one_relations_share_no_object(world: World) -> None:
    for relation in RELATIONS:
        if relation.cardinality == "one_to_one":
            objects = [f.object for f in world.facts.values() if f.relation == relation.name]
            assert len(objects) == len(set(objects))


def test_aliases_name_one_person(world: World) -> None:
    aliases = [alias for names in world.aliases.values() for alias in names]
    assert len(aliases) == len(set(aliases)) > 200
    assert not set(aliases) & set(world.entities["person"])


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_every_relation_has_enough_wordings(relation: object) -> None:
    assert isinstance(relation, type(RELATIONS[0]))
    assert len(set(relation.statements)) >= 6
    assert all(text.count("{}") == 1 for text in relation.statements + relation.questions)
    assert all(not text.endswith("{}") for text in relation.statements)


def test_held_out_wordings_are_two_and_fixed(world: World) -> None:
    fact = next(iter(world.facts.values()))
    copy = Fact(fact.subject, fact.relation, ("another object",))
    assert len(fact.statements(seen=False)) == 2
    assert copy.held_out == fact.held_out
    assert not set(fact.statements(seen=True)) & set(fact.statements(seen=False))
