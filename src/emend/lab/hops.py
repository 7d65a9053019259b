"""Documents that reason from facts given in the text: new facts, demonstrations, chains.

The layouts are fixed: in-context editing and stepwise question answering use them as prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from emend.lab.language import ANSWER, RELATION_BY_NAME, RELATIONS, TEXT, Document, Relation
from emend.lab.world import Fact, World

NEW_FACT = "New fact: "
PROMPT = "Prompt: "
QUESTION = "Question: "
SUBQUESTION = "Subquestion: "
GENERATED = "Generated answer: "
RETRIEVED = "Retrieved fact: "
CONTRADICTS = "Retrieved fact contradicts the generated answer, so the intermediate answer is: "
AGREES = "Retrieved fact does not contradict the generated answer, so the intermediate answer is: "
FINAL = "Final answer: "
QUESTION_FORMS = ("{asking} is {phrase}?", "Name {phrase}.", "Tell me {phrase}.")


@dataclass(frozen=True)
class Hop:
    """One step of a chain: the fact of the world, and its object after the edits."""

    fact: Fact
    object: str
    edited: bool


class Writer:
    """Writes facts of a world as text; the base of the corpus."""

    def __init__(self, world: World, generator: random.Random) -> None:
        self.world = world
        self.generator = generator
        self.having: dict[str, list[str]] = {relation.name: [] for relation in RELATIONS}
        for subject, relation in world.facts:
            self.having[relation].append(subject)
        self.aliased = list(world.aliases)
        self._all_facts = list(world.facts.values())

    def tell(self, fact: Fact, name: str | None = None) -> Document:
        """State a fact in a wording seen with it."""
        template = self.generator.choice(fact.statements(seen=True))
        value = self.generator.choice(fact.objects)
        return [
            (" " + template.format(name or fact.subject), TEXT),
            (" " + value, ANSWER),
            (".", TEXT),
        ]

    def ask(self, fact: Fact, name: str | None = None) -> Document:
        """Write a question about a fact and its answer."""
        prompts = RELATION_BY_NAME[fact.relation].question_prompts()
        prompt = self.generator.choice(prompts).format(name or fact.subject)
        return [(prompt, TEXT), (" " + self.generator.choice(fact.objects), ANSWER), (".", TEXT)]

    def another(self, fact: Fact) -> str:
        """Draw an object of the same kind that the fact does not have."""
        values = self.world.values(RELATION_BY_NAME[fact.relation].object_kind)
        while True:
            value = self.generator.choice(values)
            if value not in fact.objects and value != fact.subject:
                return value

    def any_fact(self) -> Fact:
        """Draw any fact of the world."""
        return self.generator.choice(self._all_facts)

    def prompt(self, fact: Fact, *, seen: bool) -> str:
        """Draw a prompt that the fact's object completes, if `seen` in a wording seen with it."""
        relation = RELATION_BY_NAME[fact.relation]
        templates = fact.statements(seen=True) if seen else relation.statements
        if self.generator.random() < 0.25:
            templates = relation.question_prompts()
        return self.generator.choice(templates).format(fact.subject)

    def bystander(self, edited: list[Fact]) -> Fact:
        """Draw a fact that is not edited, often one close to those that are."""
        fact = self.generator.choice(edited)
        touched = {(one.subject, one.relation) for one in edited}
        while True:
            kind = self.generator.random()
            if kind < 0.35:
                other = self.generator.choice(self.world.facts_of(fact.subject))
            elif kind < 0.7:
                subject = self.generator.choice(self.having[fact.relation])
                other = self.world.facts[(subject, fact.relation)]
            else:
                other = self.any_fact()
            if (other.subject, other.relation) not in touched:
                return other

    def context_document(self, *, facts: int, demonstrations: int) -> Document:
        """Write new facts, then prompts; before them, demonstrations of the same kind.

        Args:
            facts: Number of new facts.
            demonstrations: Number of blocks, of a new fact and one prompt, that come first.
        """
        pieces: Document = []
        for _ in range(demonstrations):
            pieces += self._block([self.any_fact()], prompts=1)
            pieces.append(("\n\n", TEXT))
        drawn = [self.any_fact() for _ in range(facts)]
        edited = list({(fact.subject, fact.relation): fact for fact in drawn}.values())
        return pieces + self._block(edited, prompts=min(3, facts))

    def _block(self, edited: list[Fact], prompts: int) -> Document:
        targets = [self.another(fact) for fact in edited]
        pieces: Document = []
        for fact, target in zip(edited, targets, strict=True):
            template = self.generator.choice(RELATION_BY_NAME[fact.relation].statements)
            pieces.append((f"{NEW_FACT}{template.format(fact.subject)} {target}.\n", TEXT))
        for i in range(prompts):
            bystands = self.generator.random() < 0.5
            if not bystands:
                chosen = self.generator.randrange(len(edited))
                fact, answer = edited[chosen], targets[chosen]
            else:
                fact = self.bystander(edited)
                answer = self.generator.choice(fact.objects)
            end = "\n" if i < prompts - 1 else ""
            prompt = PROMPT + self.prompt(fact, seen=bystands)
            pieces += [(prompt, TEXT), (" " + answer, ANSWER), ("." + end, TEXT)]
        return pieces


def hop_chain(writer: Writer, length: int, edit_share: float = 0.5) -> list[Hop]:
    """Draw a chain of facts in which each object is the next subject; some facts are edited.

    Args:
        writer: The source of facts.
        length: Number of hops.
        edit_share: Probability that a fact is edited.
    """
    while True:
        fact = writer.any_fact()
        hops: list[Hop] = []
        for _ in range(length):
            edited = writer.generator.random() < edit_share
            value = writer.another(fact) if edited else fact.object
            hops.append(Hop(fact, value, edited))
            onward = writer.world.facts_of(value)
            if len(hops) == length or not onward:
                break
            fact = writer.generator.choice(onward)
        if len(hops) == length:
            return hops


def chain_question(hops: list[Hop], form: str) -> str:
    """Return the question of a chain, such as "What is the capital of the country of Bergen?"."""
    phrase = hops[0].fact.subject
    for hop in hops:
        phrase = RELATION_BY_NAME[hop.fact.relation].phrase.format(phrase)
    return form.format(asking=_asking(RELATION_BY_NAME[hops[-1].fact.relation]), phrase=phrase)


def _asking(relation: Relation) -> str:
    return "Who" if relation.object_kind == "person" else "What"


def subquestion(relation: Relation, subject: str) -> str:
    """Return the question of one step."""
    return f"{_asking(relation)} is {relation.phrase.format(subject)}?"


def hop_document(writer: Writer, length: int) -> Document:
    """Answer a question step by step: subquestion, own answer, retrieved fact, verdict."""
    hops = hop_chain(writer, length)
    question = chain_question(hops, writer.generator.choice(QUESTION_FORMS))
    pieces: Document = [(f"{QUESTION}{question}\n", TEXT)]
    for hop in hops:
        pieces += _step(writer, hop)
    return [*pieces, (FINAL, TEXT), (hops[-1].object, ANSWER), (".", TEXT)]


def _step(writer: Writer, hop: Hop) -> Document:
    relation = RELATION_BY_NAME[hop.fact.relation]
    # In one wording, so that the question determines the answer.
    own = hop.fact.statements(seen=True)[0].format(hop.fact.subject)
    return [
        (SUBQUESTION, TEXT),
        (f"{subquestion(relation, hop.fact.subject)}\n{GENERATED}", ANSWER),
        (f"{own} {hop.fact.object}", ANSWER),
        (f".\n{RETRIEVED}{retrieved_fact(writer, hop)}\n", TEXT),
        ((CONTRADICTS if hop.edited else AGREES) + hop.object, ANSWER),
        (".\n", TEXT),
    ]


def retrieved_fact(writer: Writer, hop: Hop) -> str:
    """Return the fact that retrieval finds: the new one, the same one, or an irrelevant one."""
    fact, value = hop.fact, hop.object
    templates = RELATION_BY_NAME[fact.relation].statements
    if not hop.edited:
        templates = fact.statements(seen=True)
        if writer.generator.random() < 0.7:
            fact = writer.bystander([hop.fact])
            value = writer.another(fact)
            templates = RELATION_BY_NAME[fact.relation].statements
    template = writer.generator.choice(templates)
    return f"{template.format(fact.subject)} {value}."
