"""Edits of the lab's facts with all their consequences, and multi-hop questions over them.

In a closed world each probe follows from a rule, so that no judge is needed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from emend.edits import GROUPS, Edit, MultiHop, Probe, SingleHop
from emend.errors import InvalidInput
from emend.lab.hops import QUESTION_FORMS, Hop, chain_question, subquestion
from emend.lab.language import OTHER_WORK_PROMPT, RELATION_BY_NAME
from emend.lab.world import Fact, World

NEIGHBORS = 5
"""Number of neighborhood probes of an edit."""
LENGTHS = (2, 3, 4)
EDITED = 0.5
"""How often a hop's fact is edited; of each chain one is at least."""
_TRIES = 2_000

_Key = tuple[str, str]
"""Subject and relation."""


def make_edit(world: World, fact: Fact, target: str, generator: random.Random) -> Edit:
    """Make the edit that changes the object of `fact` to `target`, with its probes.

    Args:
        world: The world of the fact.
        fact: The fact as the model knows it.
        target: The new object.
        generator: Source of every choice.
    """
    template = generator.choice(fact.statements(seen=True))
    probes = [
        *_rephrase(fact, target),
        *_aliases(world, fact, template, target),
        *_reverse(fact, target, generator),
        *_one_hop(world, fact, target),
        *_specificity(world, fact, generator),
        *_neighborhood(world, fact, template, target, generator),
        *_forgetfulness(fact),
    ]
    return Edit(
        prompt=template,
        subject=fact.subject,
        target=target,
        original=fact.object,
        relation=fact.relation,
        probes=tuple(probes),
    )


def draw_edits(world: World, limit: int | None = None, seed: int = 0) -> list[Edit]:
    """Draw edits of facts without replacement, each to another object of the same kind.

    Args:
        world: The world of the facts.
        limit: Number of edits; all facts by default.
        seed: Seed of the draw. A smaller limit returns the first edits of a larger one.
    """
    generator = random.Random(f"edits-{seed}")
    facts = sorted(world.facts.values(), key=lambda fact: (fact.subject, fact.relation))
    generator.shuffle(facts)
    return [make_edit(world, fact, _target(world, fact, seed), generator) for fact in facts[:limit]]


def without_edited(edits: Sequence[Edit]) -> list[Edit]:
    """Remove the locality probes that ask for a fact that another of the edits changes.

    Edits that are made together change some of one another's neighbors on purpose.
    """
    changed = {
        template.format(edit.subject)
        for edit in edits
        for template in RELATION_BY_NAME[str(edit.relation)].statements
    }
    return [replace(edit, probes=tuple(_unchanged(edit, changed))) for edit in edits]


def _unchanged(edit: Edit, changed: set[str]) -> Iterator[Probe]:
    local = GROUPS["locality"]
    for probe in edit.probes:
        # A distracting probe is a statement, then the question.
        asked = {probe.prompt, probe.prompt.rpartition(". ")[2]}
        if probe.group not in local or not asked & changed:
            yield probe


def _target(world: World, fact: Fact, seed: int) -> str:
    generator = random.Random(f"target-{seed}-{fact.subject}-{fact.relation}")
    return generator.choice(world.other_objects(fact))


def _rephrase(fact: Fact, target: str) -> list[Probe]:
    """Ask in the wordings that the corpus never uses with this fact."""
    prompts = (template.format(fact.subject) for template in fact.statements(seen=False))
    return [Probe("rephrase", prompt, (target,)) for prompt in prompts]


def _aliases(world: World, fact: Fact, template: str, target: str) -> list[Probe]:
    names = world.aliases.get(fact.subject, ())
    return [Probe("subject_alias", template.format(name), (target,)) for name in names]


def _reverse(fact: Fact, target: str, generator: random.Random) -> list[Probe]:
    relation = RELATION_BY_NAME[fact.relation]
    if relation.cardinality != "one_to_one" or relation.inverse is None:
        return []
    template = generator.choice(RELATION_BY_NAME[relation.inverse].statements)
    return [Probe("reverse_relation", template.format(target), (fact.subject,))]


def _one_hop(world: World, fact: Fact, target: str) -> list[Probe]:
    """Ask for facts of the new object: the country of somebody's birthplace."""
    relation = RELATION_BY_NAME[fact.relation]
    middle = relation.phrase.format(fact.subject)
    # The inverse relation is no hop: the edit itself changes it.
    onward = [one for one in world.facts_of(target) if one.relation != relation.inverse]
    return [
        Probe(
            "one_hop",
            f"Question: {subquestion(RELATION_BY_NAME[one.relation], middle)} Answer:",
            one.objects,
        )
        for one in onward[:3]
    ]


def _specificity(world: World, fact: Fact, generator: random.Random) -> list[Probe]:
    """Ask for all other facts of the subject."""
    others = [other for other in world.facts_of(fact.subject) if other.relation != fact.relation]
    return [
        Probe("relation_specificity", _seen(other, generator), other.objects) for other in others
    ]


def _neighborhood(
    world: World, fact: Fact, template: str, target: str, generator: random.Random
) -> list[Probe]:
    """Ask for the same relation of other subjects, those with the same object first.

    Two are asked again after a statement of the edit, which must not distract from them.
    """
    same = [
        other
        for other in world.facts.values()
        if other.relation == fact.relation and other.subject != fact.subject
    ]
    generator.shuffle(same)
    same.sort(key=lambda other: not set(other.objects) & set(fact.objects))
    chosen = same[:NEIGHBORS]
    probes = [Probe("neighborhood", _seen(other, generator), other.objects) for other in chosen]
    statement = f"{template.format(fact.subject)} {target}."
    distracted = [
        Probe("distracting", f"{statement} {probe.prompt}", probe.answers) for probe in probes[:2]
    ]
    return probes + distracted


def _forgetfulness(fact: Fact) -> list[Probe]:
    """Ask for the other objects of a one-to-many relation."""
    known, *others = fact.objects
    return [
        Probe("forgetfulness", OTHER_WORK_PROMPT.format(work=known, person=fact.subject), (other,))
        for other in others
    ]


def _seen(fact: Fact, generator: random.Random) -> str:
    return generator.choice(fact.statements(seen=True)).format(fact.subject)


@dataclass
class _Changed:
    """The changed world so far: targets of edited facts, and facts that must not change."""

    targets: dict[_Key, str]
    fixed: set[_Key]


def draw_multi_hop(
    world: World, limit: int = 100, seed: int = 0, lengths: Sequence[int] = LENGTHS
) -> list[MultiHop]:
    """Draw multi-hop instances, equally many of each length.

    All instances of a seed share one changed world: no two edit a fact differently, and none edits
    a fact that another one uses unedited. The answers are therefore the same however many of the
    instances' edits are in a model together.

    Args:
        world: The world of the facts.
        limit: Number of instances.
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
                    f"hops, expected a limit of at most that: it is {limit}"
                )
            continue
        asked.add(chain_question(hops, QUESTION_FORMS[0]))
        found.append(_instance(world, hops, f"lab-{seed}-{len(found)}", changed))
    return found


def _chain(
    world: World, changed: _Changed, fact: Fact, length: int, generator: random.Random
) -> list[Hop] | None:
    """Draw a chain of the changed world that begins with a fact; None if that fails."""
    hops: list[Hop] = []
    targets = dict(changed.targets)
    for number in range(length):
        key = (fact.subject, fact.relation)
        if len(fact.objects) > 1:  # a question would be ambiguous
            return None
        if key not in targets and key not in changed.fixed and generator.random() < EDITED:
            targets[key] = generator.choice(world.other_objects(fact))
        hops.append(Hop(fact, targets.get(key, fact.object), key in targets))
        onward = [one for one in world.facts_of(hops[-1].object) if len(one.objects) == 1]
        if number + 1 < length:
            if not onward:
                return None
            fact = generator.choice(onward)
    return hops if _is_fair(world, hops) else None


def _is_fair(world: World, hops: list[Hop]) -> bool:
    """Return whether a hop is edited, no entity occurs twice, and the answer changes."""
    if not any(hop.edited for hop in hops):
        return False
    met = [hops[0].fact.subject, *(hop.object for hop in hops)]
    old = _old_answer(world, hops)
    return len(set(met)) == len(met) and old is not None and old != hops[-1].object


def _old_answer(world: World, hops: list[Hop]) -> str | None:
    """Follow the same relations in the unedited world."""
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
            edits.append(_edit_of(hop))
        else:
            changed.fixed.add(key)
    old = _old_answer(world, hops)
    return MultiHop(
        id=name,
        edits=tuple(edits),
        questions=tuple(chain_question(hops, form) for form in QUESTION_FORMS),
        answers=(hops[-1].object,),
        old_answers=(str(old),),
        hops=tuple(_single_hop(hop) for hop in hops),
    )


def _edit_of(hop: Hop) -> Edit:
    fact = hop.fact
    # One wording for each fact, so that the same edit of several instances has the same id.
    prompt = random.Random(f"{fact.subject}|{fact.relation}").choice(fact.statements(seen=True))
    return Edit(prompt, fact.subject, hop.object, original=fact.object, relation=fact.relation)


def _single_hop(hop: Hop) -> SingleHop:
    fact = hop.fact
    return SingleHop(
        question=subquestion(RELATION_BY_NAME[fact.relation], fact.subject),
        cloze=_edit_of(hop).text,
        answers=(hop.object,),
        edited=hop.edited,
    )
