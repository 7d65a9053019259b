"""Edits of the lab's facts with every consequence known: what must change, and what must not.

In a closed world each probe follows from a rule, so that nothing is left to a judge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from emend.edits import GROUPS, Edit, Probe
from emend.lab.hops import subquestion
from emend.lab.language import OTHER_WORK_PROMPT, RELATION_BY_NAME
from emend.lab.world import Fact, World

NEIGHBORS = 5
"""Neighborhood probes of an edit."""


def make_edit(world: World, fact: Fact, target: str, generator: random.Random) -> Edit:
    """The edit that makes `target` the object of `fact`, with its probes.

    Args:
        world: The world the fact is from.
        fact: What the model believes now.
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
    """Edits of facts drawn without replacement, each to another object of the same kind.

    Args:
        world: Where the facts are.
        limit: How many; all facts by default.
        seed: Seed of the draw. A smaller limit gives the first edits of a larger one.
    """
    generator = random.Random(f"edits-{seed}")
    facts = sorted(world.facts.values(), key=lambda fact: (fact.subject, fact.relation))
    generator.shuffle(facts)
    return [make_edit(world, fact, _target(world, fact, seed), generator) for fact in facts[:limit]]


def without_edited(edits: Sequence[Edit]) -> list[Edit]:
    """The edits without the locality probes that ask for what another of them changes.

    Made together, edits of a world change some of one another's neighbors on purpose.
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
    values = world.values(RELATION_BY_NAME[fact.relation].object_kind)
    free = [value for value in values if value not in fact.objects and value != fact.subject]
    return random.Random(f"target-{seed}-{fact.subject}-{fact.relation}").choice(free)


def _rephrase(fact: Fact, target: str) -> list[Probe]:
    """The wordings that the corpus never used with this fact."""
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
    """Questions that go on from the new object: the country of the birthplace of somebody."""
    relation = RELATION_BY_NAME[fact.relation]
    middle = relation.phrase.format(fact.subject)
    # Back to where the edit came from is no hop: the edit itself has changed what is there.
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
    """Everything else about the same subject."""
    others = [other for other in world.facts_of(fact.subject) if other.relation != fact.relation]
    return [
        Probe("relation_specificity", _seen(other, generator), other.objects) for other in others
    ]


def _neighborhood(
    world: World, fact: Fact, template: str, target: str, generator: random.Random
) -> list[Probe]:
    """The same relation of other subjects, those with the same object first.

    Some are asked once more after the edit has been said aloud, which must not distract from them.
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
    said = f"{template.format(fact.subject)} {target}."
    distracted = [
        Probe("distracting", f"{said} {probe.prompt}", probe.answers) for probe in probes[:2]
    ]
    return probes + distracted


def _forgetfulness(fact: Fact) -> list[Probe]:
    """The other values of a one-to-many relation."""
    known, *others = fact.objects
    return [
        Probe("forgetfulness", OTHER_WORK_PROMPT.format(work=known, person=fact.subject), (other,))
        for other in others
    ]


def _seen(fact: Fact, generator: random.Random) -> str:
    return generator.choice(fact.statements(seen=True)).format(fact.subject)
