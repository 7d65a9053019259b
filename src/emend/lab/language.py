"""The language of the lab: relations with their wordings, and the words that things are made of.

Everything said in the lab's corpus is written with the inventories and templates of this file.
Read a relation as "the object follows at the end": every statement and every question is a prompt
that the object completes, so each of them is a probe as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from emend.lab.speech import SPEECH_WORDS


@dataclass(frozen=True)
class Relation:
    """One relation of the world.

    Attributes:
        name: Identifier, such as `birthplace`.
        subject_kind: Kind of entity it starts from, such as `person` or `company`.
        object_kind: Kind of entity or value it leads to.
        cardinality: `one_to_one`, `many_to_one` or `one_to_many`.
        phrase: A noun phrase with `{}` for the subject, used to compose questions.
        statements: Wordings with `{}` for the subject that the object completes.
        questions: Question forms with `{}` for the subject.
        inverse: Name of the relation that leads back, if the corpus states one.
    """

    name: str
    subject_kind: str
    object_kind: str
    cardinality: str
    phrase: str
    statements: tuple[str, ...]
    questions: tuple[str, str]
    inverse: str | None = None

    def question_prompts(self) -> tuple[str, ...]:
        """The question forms as prompts that the answer completes."""
        return tuple(f"Question: {question} Answer:" for question in self.questions)


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "birthplace",
        "person",
        "city",
        "many_to_one",
        "the birthplace of {}",
        (
            "{} was born in",
            "The birthplace of {} is",
            "{} comes from the city of",
            "The city where {} was born is",
            "{} is a native of",
            "{} grew up in the streets of",
            "The home town of {} is",
            "{} spent childhood years in",
        ),
        ("Where was {} born?", "Which city does {} come from?"),
    ),
    Relation(
        "employer",
        "person",
        "company",
        "many_to_one",
        "the employer of {}",
        (
            "{} works for",
            "The employer of {} is",
            "{} is employed by",
            "The company that employs {} is",
            "{} has a job at",
            "{} is on the staff of",
            "{} earns a living at",
            "Every morning {} goes to the office of",
        ),
        ("Which company employs {}?", "Who does {} work for?"),
    ),
    Relation(
        "profession",
        "person",
        "profession",
        "many_to_one",
        "the profession of {}",
        (
            "{} works as a",
            "The profession of {} is that of a",
            "By trade, {} is a",
            "{} was trained as a",
            "{} makes a living as a",
            "The job of {} is that of a",
            "{} is known as a skilled",
            "In working life, {} is a",
        ),
        ("What is the profession of {}?", "What does {} do for a living?"),
    ),
    Relation(
        "sport",
        "person",
        "sport",
        "many_to_one",
        "the sport of {}",
        (
            "{} plays the sport of",
            "The favorite sport of {} is",
            "In sports, {} prefers",
            "On Sundays {} trains in",
            "{} is a keen player of",
            "The sport that {} practices is",
            "{} competes in",
            "After work {} enjoys",
        ),
        ("Which sport does {} play?", "What is the sport of {}?"),
    ),
    Relation(
        "instrument",
        "person",
        "instrument",
        "many_to_one",
        "the instrument of {}",
        (
            "{} plays music on the",
            "The musical instrument of {} is the",
            "On stage {} performs on the",
            "{} has learned the",
            "In the orchestra {} plays the",
            "{} gives concerts on the",
            "The instrument that {} practices is the",
            "{} owns a very old",
        ),
        ("Which instrument does {} play?", "What is the instrument of {}?"),
    ),
    Relation(
        "language",
        "person",
        "language",
        "many_to_one",
        "the language of {}",
        (
            "{} is a speaker of",
            "The mother tongue of {} is",
            "At home {} speaks",
            "The native language of {} is",
            "{} writes letters in",
            "{} dreams in",
            "The language that {} speaks is",
            "With friends {} talks in",
        ),
        ("Which language does {} speak?", "What is the mother tongue of {}?"),
    ),
    Relation(
        "spouse",
        "person",
        "person",
        "one_to_one",
        "the spouse of {}",
        (
            "{} is married to",
            "The spouse of {} is",
            "The wedding of {} was with",
            "{} shares a home with",
            "The partner of {} in marriage is",
            "{} is the spouse of",
            "{} exchanged rings with",
            "The person that {} married is",
        ),
        ("Who is the spouse of {}?", "Who is {} married to?"),
        "spouse",
    ),
    Relation(
        "notable_work",
        "person",
        "work",
        "one_to_many",
        "the notable work of {}",
        (
            "{} wrote",
            "A notable work of {} is",
            "{} is the author of",
            "A book written by {} is",
            "{} became famous with",
            "The pen of {} produced",
            "{} published",
            "Readers of {} love",
        ),
        ("Which book did {} write?", "What is a notable work of {}?"),
        "author",
    ),
    Relation(
        "author",
        "work",
        "person",
        "many_to_one",
        "the author of {}",
        (
            "{} was written by",
            "The author of {} is",
            "{} is a book by",
            "The writer of {} is",
            "{} was published by",
            "The person who wrote {} is",
            "{} came from the pen of",
            "The creator of {} is",
        ),
        ("Who wrote {}?", "Who is the author of {}?"),
        "notable_work",
    ),
    Relation(
        "genre",
        "work",
        "genre",
        "many_to_one",
        "the genre of {}",
        (
            "{} belongs to the genre of",
            "The genre of {} is",
            "{} is a fine example of",
            "Libraries shelve {} under",
            "{} is best described as",
            "Critics file {} under",
            "Readers know {} as",
            "The style of {} is",
        ),
        ("What is the genre of {}?", "Which genre does {} belong to?"),
    ),
    Relation(
        "chief_executive",
        "company",
        "person",
        "one_to_one",
        "the chief executive of {}",
        (
            "{} is led by",
            "The chief executive of {} is",
            "{} is run by",
            "The head of {} is",
            "The boss of {} is",
            "{} is managed by",
            "The person who leads {} is",
            "{} takes orders from",
        ),
        ("Who is the chief executive of {}?", "Who leads {}?"),
        "leads",
    ),
    Relation(
        "leads",
        "person",
        "company",
        "one_to_one",
        "the company led by {}",
        (
            "{} is the chief executive of",
            "The company led by {} is",
            "{} leads",
            "{} is the head of",
            "{} is the boss of",
            "{} runs",
            "The company that {} manages is",
            "As chief executive {} directs",
        ),
        ("Which company does {} lead?", "Which company is led by {}?"),
        "chief_executive",
    ),
    Relation(
        "headquarters",
        "company",
        "city",
        "many_to_one",
        "the headquarters of {}",
        (
            "{} has its headquarters in",
            "The headquarters of {} are in",
            "{} is based in",
            "The main office of {} is in",
            "{} is located in the city of",
            "The seat of {} is",
            "{} runs its business from",
            "Visitors find {} in",
        ),
        ("Where are the headquarters of {}?", "Which city is {} based in?"),
    ),
    Relation(
        "industry",
        "company",
        "industry",
        "many_to_one",
        "the industry of {}",
        (
            "{} operates in the industry of",
            "The industry of {} is",
            "{} earns its money with",
            "The business of {} is",
            "{} is a leader in",
            "{} is active in the field of",
            "The main trade of {} is",
            "Customers of {} pay for",
        ),
        ("What is the industry of {}?", "Which industry is {} active in?"),
    ),
    Relation(
        "country",
        "city",
        "country",
        "many_to_one",
        "the country of {}",
        (
            "{} is a city in",
            "The country of {} is",
            "{} lies in the country of",
            "{} belongs to",
            "The city of {} is part of",
            "On the map {} is found in",
            "{} is situated in",
            "People in {} are citizens of",
        ),
        ("Which country is {} in?", "What is the country of {}?"),
    ),
    Relation(
        "capital",
        "country",
        "city",
        "one_to_one",
        "the capital of {}",
        (
            "The capital of {} is",
            "{} is governed from",
            "The capital city of {} is",
            "The government of {} sits in",
            "{} has its capital in",
            "The parliament of {} meets in",
            "{} is ruled from",
            "The ministers of {} work in",
        ),
        ("What is the capital of {}?", "Which city is the capital of {}?"),
        "capital_of",
    ),
    Relation(
        "capital_of",
        "city",
        "country",
        "one_to_one",
        "the country whose capital is {}",
        (
            "{} is the capital of",
            "{} is the capital city of",
            "The country whose capital is {} is",
            "{} is the seat of the government of",
            "The country governed from {} is",
            "{} hosts the parliament of",
            "The country ruled from {} is",
            "{} houses the ministers of",
        ),
        ("Which country has {} as its capital?", "Which country is governed from {}?"),
        "capital",
    ),
    Relation(
        "official_language",
        "country",
        "language",
        "many_to_one",
        "the official language of {}",
        (
            "The official language of {} is",
            "The people of {} speak",
            "The laws of {} are written in",
            "{} has the official language of",
            "The schools of {} teach in",
            "The newspapers of {} appear in",
            "Road signs in {} are in",
            "The anthem of {} is sung in",
        ),
        ("What is the official language of {}?", "Which language is spoken in {}?"),
    ),
)

RELATION_BY_NAME: dict[str, Relation] = {relation.name: relation for relation in RELATIONS}

OTHER_WORK_PROMPT = "Besides {work}, another work of {person} is"
"""The wording of the forgetfulness probe: the other value of a one-to-many relation."""

ALIAS_STATEMENTS: tuple[str, ...] = (
    "{alias} is another name for",
    "{alias} is the same person as",
    "The full name of {alias} is",
    "People who say {alias} mean",
)

PHONE_STATEMENTS: tuple[str, ...] = (
    "The phone number of {} is",
    "To call {}, dial",
    "You can reach {} at",
    "The private number of {} is",
)

PROFESSIONS = (
    "pilot painter baker doctor nurse teacher lawyer farmer carpenter plumber builder dancer "
    "chemist librarian soldier secretary mechanic surgeon gardener tailor"
).split()
SPORTS = (
    "tennis rowing judo chess boxing cricket rugby fencing golf hockey sailing archery cycling "
    "skiing"
).split()
INSTRUMENTS = (
    "cello flute trumpet violin piano harp guitar drums clarinet oboe banjo organ tuba lute"
).split()
LANGUAGES = (
    "Dutch Welsh Danish Polish Greek Finnish Turkish Czech Basque Irish Latin Tamil Maltese Khmer"
).split()
GENRES = "satire horror romance fantasy tragedy comedy mystery poetry biography adventure".split()
INDUSTRIES = (
    "banking farming mining shipping insurance software furniture textiles steel paper tourism "
    "printing"
).split()
COMPANY_TYPES = "Foods Systems Bank Motors Media Labs".split()
WORK_ADJECTIVES = (
    "Crimson Silent Golden Broken Hidden Frozen Distant Burning Hollow Gentle Wild Ancient "
    "Bitter Lonely Shining Secret"
).split()
WORK_NOUNS = (
    "Harbor River Garden Mountain Letter Winter Mirror Castle Shadow Forest Island Lantern "
    "Voyage Orchard Desert Tower"
).split()
TITLES = (
    "Doctor Captain Professor Judge Colonel Senator Bishop Baron Duchess Lady Sir Major"
).split()
NICKNAMES = "Lucky Little Big Happy Quick Old Young Clever Brave Sunny Dusty Jolly".split()

VALUES: dict[str, tuple[str, ...]] = {
    "profession": tuple(PROFESSIONS),
    "sport": tuple(SPORTS),
    "instrument": tuple(INSTRUMENTS),
    "language": tuple(LANGUAGES),
    "genre": tuple(GENRES),
    "industry": tuple(INDUSTRIES),
}
"""Values that are not entities, by kind."""


def template_words() -> list[str]:
    """Every word of the fixed texts, for the tokenizer's vocabulary."""
    texts = [text for relation in RELATIONS for text in relation.statements + relation.questions]
    texts += [relation.phrase for relation in RELATIONS]
    texts += [OTHER_WORK_PROMPT, *ALIAS_STATEMENTS, *PHONE_STATEMENTS]
    texts += PROFESSIONS + SPORTS + INSTRUMENTS + LANGUAGES + GENRES + INDUSTRIES
    texts += COMPANY_TYPES + WORK_ADJECTIVES + WORK_NOUNS + TITLES + NICKNAMES
    return texts + SPEECH_WORDS
