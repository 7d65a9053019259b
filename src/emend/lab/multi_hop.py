"""Questions over two to four facts of the lab, of which some are edited.

All instances of a seed live in one changed world: what one edits no other edits otherwise, and
what one takes as it is no other edits. The answers are therefore the same however many of the
instances' edits are in a model at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from emend.edits import Edit, MultiHop, SingleHop
from emend.errors import InvalidInput
from emend.lab.hops import QUESTION_FORMS, Hop, chain_question, subquestion
from emend.lab.language import RELATION_BY_NAME
from emend.lab.world import Fact, World

LENGTHS = (2, 3, 4)
EDITED = 0.5
"""How often a hop's fact is edited; of each chain one is at least."""
_TRIES = 2_000

_Key = tuple[str, str]
"""Subject and relation."""


@dataclass
class _Changed:
    """The changed world so far: targets of edited facts, and facts that must stay."""

    targets: dict[_Key, str]
    kept: set[_Key]


def draw_multi_hop(
    world: World, limit: int = 100, seed: int = 0, lengths: Sequence[int] = LENGTHS
) -> list[MultiHop]:
    """Draw instances, as many of each length as of the others.

    Args:
        world: Where the facts are.
        limit: How many instances.
        seed: Seed of every choice. A smaller limit gives the first instances of a larger one.
        lengths: Numbers of hops, each 1 or more.

    Raises:
        InvalidInput: No length, one below 1, or more instances than the world has room for.
    """
    if not lengths or min(lengths) < 1:
        raise InvalidInput(f"lengths are {list(lengths)}, expected numbers of hops from 1 on")
    generator = random.Random(f"multi-hop-{seed}")
    changed = _Changed({}, set())
    facts = sorted(world.facts.values(), key=lambda fact: (fact.subject, fact.relation))
    asked: set[str] = set()
    found: list[MultiHop] = []
    tries = 0
    while len(found) < limit:
        length = lengths[len(found) % len(lengths)]
        hops = _chain(world, changed, generator.choice(facts), length, generator)
        tries += 1
        if hops is None or chain_question(hops, QUESTION_FORMS[0]) in asked:
            if tries > _TRIES * limit:
                raise InvalidInput(
                    f"the lab's world has room for {len(found)} questions of {list(lengths)} "
                    f"hops, expected at most that: {limit} are asked for"
                )
            continue
        asked.add(chain_question(hops, QUESTION_FORMS[0]))
        found.append(_instance(world, hops, f"lab-{seed}-{len(found)}", changed))
    return found


def _chain(
    world: World, changed: _Changed, fact: Fact, length: int, generator: random.Random
) -> list[Hop] | None:
    """A chain in the changed world from a fact on, or None where it comes to nothing."""
    hops: list[Hop] = []
    targets = dict(changed.targets)
    for number in range(length):
        key = (fact.subject, fact.relation)
        if len(fact.objects) > 1:  # which of several works is meant, nobody can say
            return None
        if key not in targets and key not in changed.kept and generator.random() < EDITED:
            targets[key] = _another(world, fact, generator)
        hops.append(Hop(fact, targets.get(key, fact.object), key in targets))
        onward = [one for one in world.facts_of(hops[-1].object) if len(one.objects) == 1]
        if number + 1 < length:
            if not onward:
                return None
            fact = generator.choice(onward)
    return hops if _is_fair(world, hops) else None


def _another(world: World, fact: Fact, generator: random.Random) -> str:
    values = world.values(RELATION_BY_NAME[fact.relation].object_kind)
    free = [value for value in values if value not in (*fact.objects, fact.subject)]
    return generator.choice(free)


def _is_fair(world: World, hops: list[Hop]) -> bool:
    """Whether something is edited, nothing is met twice, and the answer before was another."""
    if not any(hop.edited for hop in hops):
        return False
    met = [hops[0].fact.subject, *(hop.object for hop in hops)]
    old = _old_answer(world, hops)
    return len(set(met)) == len(met) and old is not None and old != hops[-1].object


def _old_answer(world: World, hops: list[Hop]) -> str | None:
    """Where the same relations lead in the world as it was."""
    name = hops[0].fact.subject
    for hop in hops:
        fact = world.get(name, hop.fact.relation)
        if fact is None:
            return None
        name = fact.object
    return name


def _instance(world: World, hops: list[Hop], name: str, changed: _Changed) -> MultiHop:
    edits: list[Edit] = []
    for hop in hops:
        key = (hop.fact.subject, hop.fact.relation)
        if hop.edited:
            changed.targets[key] = hop.object
            edits.append(_edit(hop))
        else:
            changed.kept.add(key)
    old = _old_answer(world, hops)
    return MultiHop(
        id=name,
        edits=tuple(edits),
        questions=tuple(chain_question(hops, form) for form in QUESTION_FORMS),
        answers=(hops[-1].object,),
        old_answers=(str(old),),
        hops=tuple(_single_hop(hop) for hop in hops),
    )


def _edit(hop: Hop) -> Edit:
    fact = hop.fact
    # One wording a fact, whichever instances it is in: the same edit then has the same id.
    prompt = random.Random(f"{fact.subject}|{fact.relation}").choice(fact.statements(seen=True))
    return Edit(prompt, fact.subject, hop.object, original=fact.object, relation=fact.relation)


def _single_hop(hop: Hop) -> SingleHop:
    fact = hop.fact
    return SingleHop(
        question=subquestion(RELATION_BY_NAME[fact.relation], fact.subject),
        cloze=_edit(hop).text,
        answers=(hop.object,),
        edited=hop.edited,
    )
