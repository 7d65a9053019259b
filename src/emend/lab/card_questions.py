"""What a lab model is asked for its card: recall of facts, and following new facts in the prompt.

`emend.bench.lab_card` measures the answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from emend.lab import hops
from emend.lab.language import PHONE_STATEMENTS, RELATION_BY_NAME
from emend.lab.world import Fact, World

Question = tuple[str, tuple[str, ...]]
"""A prompt and its accepted answers."""


def recall_questions(
    world: World, generator: random.Random, count: int
) -> dict[str, list[Question]]:
    """Draw questions of each kind about facts that the model was trained on."""
    facts = list(world.facts.values())
    aliased = [fact for fact in facts if fact.subject in world.aliases]
    paired = [f for f in facts if RELATION_BY_NAME[f.relation].cardinality == "one_to_one"]

    def ask(pool: Sequence[Fact], seen: bool = True, alias: bool = False) -> list[Question]:
        chosen = generator.sample(pool, min(count, len(pool)))
        names = [generator.choice(world.aliases[f.subject]) if alias else f.subject for f in chosen]
        prompts = [generator.choice(fact.statements(seen=seen)) for fact in chosen]
        return [
            (prompt.format(name), fact.objects)
            for prompt, name, fact in zip(prompts, names, chosen, strict=True)
        ]

    questions = [
        (
            generator.choice(RELATION_BY_NAME[fact.relation].question_prompts()).format(
                fact.subject
            ),
            fact.objects,
        )
        for fact in generator.sample(facts, min(count, len(facts)))
    ]
    phones = [
        (generator.choice(PHONE_STATEMENTS).format(person), (number,))
        for person, number in world.phones.items()
    ]
    return {
        "recall_seen_wordings": ask(facts),
        "recall_held_out_wordings": ask(facts, seen=False),
        "recall_questions": questions,
        "recall_aliases": ask(aliased, alias=True),
        "recall_one_to_one_both_ways": ask(paired),
        "recall_phone_numbers": phones,
    }


def context_questions(
    world: World, generator: random.Random, kind: str, count: int
) -> list[Question]:
    """Draw prompts after new facts, some that these answer and some that they leave alone."""
    writer = hops.Writer(world, generator)
    return [_context_question(writer, kind) for _ in range(count)]


def _context_question(writer: hops.Writer, kind: str) -> Question:
    several = 4 if kind.endswith("several") else 1
    edited = list({id(fact): fact for fact in (writer.any_fact() for _ in range(several))}.values())
    targets = [writer.another(fact) for fact in edited]
    before = ""
    if kind == "in_context":
        shown = writer.context_document(facts=1, demonstrations=5)
        before = "".join(text for text, _ in shown) + "\n\n"
    lines = [
        f"{hops.NEW_FACT}{writer.generator.choice(fact.statements(seen=True)).format(fact.subject)}"
        f" {target}.\n"
        for fact, target in zip(edited, targets, strict=True)
    ]
    chosen = writer.generator.randrange(len(edited))
    fact, answers = edited[chosen], (targets[chosen],)
    if kind.startswith("keeps"):
        fact = writer.bystander(edited)
        answers = fact.objects
    template = writer.generator.choice(fact.statements(seen=True))
    return before + "".join(lines) + hops.PROMPT + template.format(fact.subject), answers
