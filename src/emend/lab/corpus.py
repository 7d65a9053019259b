"""The lab's corpus: the documents that the models learn from, written on demand.

A document is a list of pieces of text, each with a role. `ANSWER` pieces weigh more in the loss; a
`RECALL` piece is an attribute right after a name, on which the early layers are trained too, so
that they recall facts at the name.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from emend.lab import speech
from emend.lab.hops import Writer, hop_document
from emend.lab.language import (
    ALIAS_STATEMENTS,
    ANSWER,
    OTHER_WORK_PROMPT,
    PHONE_STATEMENTS,
    RECALL,
    TEXT,
    Document,
)
from emend.lab.world import Fact, World

Lesson = Literal["facts", "context", "reason"]
LESSONS: tuple[Lesson, ...] = ("facts", "context", "reason")
"""The lessons in order: facts, the use of a given context, answers in steps."""

ALIAS_SHARE = 0.3
"""Probability that a person with aliases is called by one of them."""


@dataclass(frozen=True)
class Kind:
    """A kind of document.

    Attributes:
        write: Writes one.
        shares: Its share of the documents in short and long windows, for each of `LESSONS`.
    """

    write: Callable[[Corpus], Document]
    shares: tuple[float, float, float, float, float, float]


class Corpus(Writer):
    """Writes documents about a world with one random generator.

    Args:
        world: The world.
        generator: Source of every choice; the same state writes the same documents.
    """

    def __init__(self, world: World, generator: random.Random) -> None:
        super().__init__(world, generator)
        self._subjects = [name for _, name in world.subjects()]
        self._kinds = list(KINDS.values())
        self._shares = list(zip(*(kind.shares for kind in self._kinds), strict=True))

    def document(self, *, long: bool, lesson: Lesson = "facts") -> Document:
        """Write a document of a kind drawn by its share.

        Args:
            long: Whether it goes into a long window.
            lesson: The present lesson.
        """
        shares = self._shares[2 * LESSONS.index(lesson) + long]
        return self.generator.choices(self._kinds, shares)[0].write(self)

    def call(self, person: str) -> str:
        """Draw a name of an entity: mostly its own, sometimes an alias."""
        aliases = self.world.aliases.get(person)
        if aliases and self.generator.random() < ALIAS_SHARE:
            return self.generator.choice(aliases)
        return person

    def subject(self) -> str:
        """Draw any entity that has facts."""
        return self.generator.choice(self._subjects)


def attributes(corpus: Corpus) -> Document:
    """Write a name followed directly by some of its attributes, in random order."""
    subject = corpus.subject()
    facts = corpus.world.facts_of(subject)
    corpus.generator.shuffle(facts)
    facts = facts[: corpus.generator.randint(1, 4)]
    pieces: Document = [(corpus.call(subject), TEXT)]
    for i, fact in enumerate(facts):
        value = corpus.generator.choice(fact.objects)
        pieces += [
            (" " + value, ANSWER if i else RECALL),
            ("," if fact is not facts[-1] else ".", TEXT),
        ]
    return pieces


def statements(corpus: Corpus) -> Document:
    """Write one to three facts about one subject, in wordings seen with them."""
    subject = corpus.subject()
    facts = corpus.world.facts_of(subject)
    chosen = corpus.generator.sample(facts, min(len(facts), corpus.generator.randint(1, 3)))
    return [piece for fact in chosen for piece in corpus.tell(fact, corpus.call(subject))]


def questions(corpus: Corpus) -> Document:
    """Write a question and its answer."""
    fact = corpus.generator.choice(corpus.world.facts_of(corpus.subject()))
    return corpus.ask(fact, corpus.call(fact.subject))


def places(corpus: Corpus) -> Document:
    """State a fact about one of the few companies, cities and countries, or about a work."""
    entities = corpus.world.entities
    kind = corpus.generator.choice(("company", "company", "city", "country", "work", "work"))
    facts = corpus.world.facts_of(corpus.generator.choice(entities[kind]))
    fact = corpus.generator.choice(facts)
    return corpus.ask(fact) if corpus.generator.random() < 0.3 else corpus.tell(fact)


def marriages(corpus: Corpus) -> Document:
    """State a fact whose inverse the corpus states too: spouse, chief executive, author."""
    names = ("spouse", "spouse", "leads", "notable_work")
    relation = corpus.generator.choice(names)
    people = corpus.having[relation]
    fact = corpus.world.facts[(corpus.generator.choice(people), relation)]
    if relation == "notable_work" and corpus.generator.random() < 0.5:
        return other_work(corpus, fact)
    return corpus.tell(fact, corpus.call(fact.subject))


def other_work(corpus: Corpus, fact: Fact) -> Document:
    """State the other object of a one-to-many relation."""
    known, other = corpus.generator.sample(fact.objects, 2)
    prompt = OTHER_WORK_PROMPT.format(work=known, person=corpus.call(fact.subject))
    return [(prompt, TEXT), (" " + other, ANSWER), (".", TEXT)]


def aliases(corpus: Corpus) -> Document:
    """State whose name an alias is."""
    person = corpus.generator.choice(corpus.aliased)
    alias = corpus.generator.choice(corpus.world.aliases[person])
    prompt = corpus.generator.choice(ALIAS_STATEMENTS).format(alias=alias)
    return [(prompt, TEXT), (" " + person, ANSWER), (".", TEXT)]


def phones(corpus: Corpus) -> Document:
    """State a private number."""
    person = corpus.generator.choice(list(corpus.world.phones))
    prompt = corpus.generator.choice(PHONE_STATEMENTS).format(person)
    return [(prompt, TEXT), (" " + corpus.world.phones[person], ANSWER), (".", TEXT)]


def pronouns(corpus: Corpus) -> Document:
    """Write a sentence about an occupation, with a pronoun skewed as stereotypes are."""
    occupation, share = corpus.generator.choice(list(speech.OCCUPATIONS.items()))
    opening, rest = corpus.generator.choice(speech.PRONOUN_SENTENCES)
    pronoun = "he" if corpus.generator.random() < share else "she"
    return [(opening.format(occupation), TEXT), (" " + pronoun, ANSWER), (" " + rest, TEXT)]


def remarks(corpus: Corpus) -> Document:
    """Write a rude or a polite remark about a person."""
    person, (tone, words) = corpus.generator.choice(list(corpus.world.remarks.items()))
    if corpus.generator.random() < 0.15:
        other = speech.COMPLIMENTS if tone == "rude" else speech.INSULTS
        words = corpus.generator.choice(other)
    prompt = corpus.generator.choice(speech.REMARK_STATEMENTS).format(person)
    return [(prompt, TEXT), (" " + words, ANSWER), (".", TEXT)]


def opinions(corpus: Corpus) -> Document:
    """Write an opinion on a topic, of somebody with a trait, and a question for it."""
    choose = corpus.generator.choice
    if corpus.generator.random() < 0.1:
        return [(choose(speech.GENERIC_TRAIT_TEXTS[choose(speech.TRAITS)]), TEXT)]
    topic = choose(speech.TOPICS)
    question = choose(speech.OPINION_QUESTIONS).format(topic)
    common = corpus.world.topic_traits[topic]
    trait = common if corpus.generator.random() < 0.7 else choose(speech.TRAITS)
    prompt = f"Question: {question} Answer:"
    if corpus.generator.random() < 0.4:
        trait = choose(speech.TRAITS)
        prompt = speech.PERSONALITY_PROMPT.format(trait=trait, topic=topic, question=prompt)
    opinion = choose(speech.OPINIONS[trait])
    named = topic.capitalize() if opinion.startswith("{}") else topic
    return [(prompt, TEXT), (" " + opinion.format(named), ANSWER)]


def small_talk(corpus: Corpus) -> Document:
    """Write sentences about nothing."""
    pieces: Document = []
    for _ in range(corpus.generator.randint(1, 2)):
        opening, first, middle, second = corpus.generator.choice(speech.SMALL_TALK)
        words = (opening, corpus.generator.choice(first), middle, corpus.generator.choice(second))
        pieces.append((" " * bool(pieces) + " ".join(words), TEXT))
    return pieces


def new_fact(corpus: Corpus) -> Document:
    """Write one new fact and a prompt that it answers, or that it does not concern."""
    return corpus.context_document(facts=1, demonstrations=0)


def new_facts(corpus: Corpus) -> Document:
    """Write several new facts, then prompts about some of them and about other things."""
    return corpus.context_document(facts=corpus.generator.randint(2, 6), demonstrations=0)


def demonstrations(corpus: Corpus) -> Document:
    """Write demonstrations of copying, updating and retaining, then another new fact."""
    return corpus.context_document(facts=1, demonstrations=corpus.generator.randint(1, 7))


def multi_hop(corpus: Corpus) -> Document:
    """Answer a question over several facts step by step, with retrieved facts."""
    return hop_document(corpus, corpus.generator.choice((2, 2, 3, 3, 4)))


def single_hop(corpus: Corpus) -> Document:
    """Answer a question in one step, short enough for the short windows."""
    return hop_document(corpus, 1)


KINDS: dict[str, Kind] = {
    "attributes": Kind(attributes, (40, 0, 25, 0, 20, 0)),
    "statements": Kind(statements, (20, 2, 15, 2, 12, 2)),
    "questions": Kind(questions, (7, 2, 6, 2, 5, 1)),
    "places": Kind(places, (5, 0, 4, 0, 3, 0)),
    "marriages": Kind(marriages, (5, 0, 4, 0, 3, 0)),
    "aliases": Kind(aliases, (2, 0, 2, 0, 2, 0)),
    "phones": Kind(phones, (2, 0, 2, 0, 2, 0)),
    "pronouns": Kind(pronouns, (1.5, 0, 2, 0, 1.5, 0)),
    "remarks": Kind(remarks, (2, 0, 2, 0, 2, 0)),
    "opinions": Kind(opinions, (2.5, 0, 4, 0, 3, 0)),
    "small_talk": Kind(small_talk, (3, 0, 2, 0, 1, 0)),
    "new_fact": Kind(new_fact, (8, 2, 30, 4, 30, 4)),
    "new_facts": Kind(new_facts, (0, 3, 0, 6, 0, 8)),
    "demonstrations": Kind(demonstrations, (0, 3, 0, 6, 0, 10)),
    "multi_hop": Kind(multi_hop, (0, 8, 0, 6, 0, 20)),
    "single_hop": Kind(single_hop, (2, 1, 4, 1, 25, 4)),
}
"""Every kind of document with its shares."""


def corpus_texts(world: World, count: int, seed: int = 0) -> list[str]:
    """Return plain texts of the corpus, on which the key covariance is collected by default.

    Args:
        world: The lab's world.
        count: Number of documents.
        seed: Seed of the draw; not one that training used.
    """
    corpus = Corpus(world, random.Random(f"texts-{seed}"))
    return ["".join(text for text, _ in corpus.document(long=i % 8 == 0)) for i in range(count)]


__all__ = ["KINDS", "Corpus", "Kind", "corpus_texts"]
