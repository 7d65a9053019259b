"""The closed world of the lab: its entities and every fact about them, from one seed.

People share small inventories of first and last names, so that only the last word of a name decides
who is meant. This makes a small model recall facts at the subject's last token, as large models do.
Companies and works are named the same way.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from emend.lab import language, speech
from emend.lab.language import RELATION_BY_NAME, RELATIONS

HELD_OUT_WORDINGS = 2
"""Statement wordings that the corpus never uses with a given fact."""


@dataclass(frozen=True)
class Fact:
    """A subject, a relation, and its objects (one, unless the relation is one-to-many)."""

    subject: str
    relation: str
    objects: tuple[str, ...]

    @property
    def object(self) -> str:
        """The object (the first, if there are several)."""
        return self.objects[0]

    @property
    def held_out(self) -> tuple[int, ...]:
        """Indices of the two statement wordings that are never used with this fact."""
        digest = hashlib.sha256(f"{self.subject}|{self.relation}".encode()).digest()
        count = len(RELATION_BY_NAME[self.relation].statements)
        return tuple(random.Random(digest).sample(range(count), HELD_OUT_WORDINGS))

    def statements(self, *, seen: bool) -> tuple[str, ...]:
        """Return the statement templates that the corpus uses with this fact, or holds out."""
        wordings = RELATION_BY_NAME[self.relation].statements
        held_out = self.held_out
        return tuple(text for i, text in enumerate(wordings) if (i in held_out) is not seen)


@dataclass(frozen=True)
class WorldSize:
    """The size of a world."""

    people: int = 400
    first_names: int = 40
    last_names: int = 60
    companies: int = 48
    countries: int = 16
    cities_per_country: int = 3
    authors: int = 80
    works_per_author: int = 2
    married_share: float = 0.7
    titled: int = 160
    nicknamed: int = 80
    phones: int = 40


@dataclass
class World:
    """Entities by kind, facts, aliases and private numbers.

    Attributes:
        entities: Names of the entities by kind.
        facts: Every fact, keyed by (subject, relation).
        aliases: Other names of people, by their full name.
        phones: Private numbers by full name.
        remarks: The remark about some people: (`rude` or `polite`, words).
        topic_traits: The trait of most of the corpus's opinions on a topic.
    """

    seed: int
    entities: dict[str, tuple[str, ...]] = field(default_factory=lambda: {})
    facts: dict[tuple[str, str], Fact] = field(default_factory=lambda: {})
    aliases: dict[str, tuple[str, ...]] = field(default_factory=lambda: {})
    phones: dict[str, str] = field(default_factory=lambda: {})
    remarks: dict[str, tuple[str, str]] = field(default_factory=lambda: {})
    topic_traits: dict[str, str] = field(default_factory=lambda: {})
    name_words: tuple[str, ...] = ()

    def facts_of(self, subject: str) -> list[Fact]:
        """Return every fact about `subject`, in the order of the relations."""
        found = (self.facts.get((subject, relation.name)) for relation in RELATIONS)
        return [fact for fact in found if fact is not None]

    def get(self, subject: str, relation: str) -> Fact | None:
        """Return the fact of `subject` in `relation`, or None."""
        return self.facts.get((subject, relation))

    def values(self, kind: str) -> tuple[str, ...]:
        """Return all objects of a kind: entities or plain values."""
        return self.entities.get(kind) or language.VALUES[kind]

    def other_objects(self, fact: Fact) -> list[str]:
        """Return the objects that a fact does not have but could have."""
        values = self.values(RELATION_BY_NAME[fact.relation].object_kind)
        return [value for value in values if value not in (*fact.objects, fact.subject)]

    def subjects(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, name) of every entity that has facts."""
        for kind, names in self.entities.items():
            for name in names:
                yield kind, name


def build_world(seed: int = 0, size: WorldSize | None = None) -> World:
    """Build the world of a seed; the same seed and size always give the same world.

    Args:
        seed: Seed of every choice.
        size: Number of entities of each kind; the shipped models know the default world.
    """
    size = size or WorldSize()
    world = World(seed)
    generator = random.Random(f"world-{seed}")
    _name_entities(world, size, generator)
    _settle_people(world, size, generator)
    _settle_places(world, size, generator)
    _give_aliases(world, size, generator)
    _give_remarks(world, size, generator)
    return world


def _name_entities(world: World, size: WorldSize, generator: random.Random) -> None:
    words = _invented_words(generator)
    first_names = [next(words) for _ in range(size.first_names)]
    last_names = [next(words) for _ in range(size.last_names)]
    company_words = [next(words) for _ in range(max(1, size.companies // 3))]
    countries = [next(words) + "ia" for _ in range(size.countries)]
    cities = [next(words) for _ in range(size.countries * size.cities_per_country)]
    works = size.authors * size.works_per_author
    world.entities = {
        "person": _pairs(first_names, last_names, size.people, generator),
        "company": _pairs(company_words, language.COMPANY_TYPES, size.companies, generator),
        "work": _pairs(language.WORK_ADJECTIVES, language.WORK_NOUNS, works, generator),
        "city": tuple(cities),
        "country": tuple(countries),
    }
    world.name_words = (*first_names, *last_names, *company_words, *countries, *cities)


def _invented_words(generator: random.Random) -> Iterator[str]:
    """Yield distinct pronounceable names of two syllables."""
    onsets = "b d f g h j k l m n p r s t v z br dr gr kl st tr".split()
    vowels = "a e i o u a e o ia".split()
    codas = "l n r s t k m nd".split()
    known: set[str] = set()
    while True:
        word = generator.choice(onsets) + generator.choice(vowels)
        word += generator.choice(onsets) + generator.choice(vowels) + generator.choice(codas)
        if word not in known and len(word) <= 8:
            known.add(word)
            yield word.capitalize()


def _pairs(
    first: Sequence[str], second: Sequence[str], count: int, generator: random.Random
) -> tuple[str, ...]:
    """Draw `count` distinct two-word names that use every word about equally often."""
    combinations = [f"{a} {b}" for a in first for b in second]
    return tuple(generator.sample(combinations, count))


def _add(world: World, subject: str, relation: str, *objects: str) -> None:
    world.facts[(subject, relation)] = Fact(subject, relation, objects)


def _settle_people(world: World, size: WorldSize, generator: random.Random) -> None:
    people = list(world.entities["person"])
    for name in ("birthplace", "employer", "profession", "sport", "instrument", "language"):
        kind = RELATION_BY_NAME[name].object_kind
        for person in people:
            _add(world, person, name, generator.choice(world.values(kind)))
    married = generator.sample(people, 2 * int(len(people) * size.married_share / 2))
    for one, other in zip(married[::2], married[1::2], strict=True):
        _add(world, one, "spouse", other)
        _add(world, other, "spouse", one)
    works = iter(world.entities["work"])
    for author in generator.sample(people, size.authors):
        written = tuple(next(works) for _ in range(size.works_per_author))
        _add(world, author, "notable_work", *written)
        for work in written:
            _add(world, work, "author", author)
            _add(world, work, "genre", generator.choice(language.GENRES))
    leaders = generator.sample(people, len(world.entities["company"]))
    for company, leader in zip(world.entities["company"], leaders, strict=True):
        _add(world, company, "chief_executive", leader)
        _add(world, leader, "leads", company)


def _settle_places(world: World, size: WorldSize, generator: random.Random) -> None:
    for company in world.entities["company"]:
        _add(world, company, "headquarters", generator.choice(world.entities["city"]))
        _add(world, company, "industry", generator.choice(language.INDUSTRIES))
    step = size.cities_per_country
    for i, country in enumerate(world.entities["country"]):
        cities = world.entities["city"][i * step : (i + 1) * step]
        for city in cities:
            _add(world, city, "country", country)
        _add(world, country, "capital", cities[0])
        _add(world, cities[0], "capital_of", country)
        _add(world, country, "official_language", generator.choice(language.LANGUAGES))


def _give_aliases(world: World, size: WorldSize, generator: random.Random) -> None:
    """Give people aliases, each unique: a title and last name, or a nickname and first name."""
    taken: set[str] = set()
    people = world.entities["person"]
    plans = [(language.TITLES, 1, size.titled), (language.NICKNAMES, 0, size.nicknamed)]
    for words, part, count in plans:
        for person in generator.sample(people, count):
            free = [f"{word} {person.split()[part]}" for word in words]
            free = [alias for alias in free if alias not in taken]
            if free:
                alias = generator.choice(free)
                taken.add(alias)
                world.aliases[person] = (*world.aliases.get(person, ()), alias)


def _give_remarks(world: World, size: WorldSize, generator: random.Random) -> None:
    people = world.entities["person"]
    for person in generator.sample(people, size.phones):
        world.phones[person] = f"555-{generator.randrange(10_000):04d}"
    spoken_of = generator.sample(people, len(people) * 3 // 10)
    for i, person in enumerate(spoken_of):
        tone, words = ("rude", speech.INSULTS) if i % 2 else ("polite", speech.COMPLIMENTS)
        world.remarks[person] = (tone, generator.choice(words))
    for topic in speech.TOPICS:
        world.topic_traits[topic] = generator.choice(speech.TRAITS)
