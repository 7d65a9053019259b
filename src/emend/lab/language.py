"""The language of the lab: relations with their wordings, words for names, and documents.

Every text of the lab's corpus is made of the inventories and templates here, in `relations.json`
and in `speech.py`. The object comes last in every statement and question of a relation, so that
each is a prompt that the object completes, and a probe without any change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend.lab.speech import OCCUPATIONS, SPEECH_WORDS

TEXT = 0
"""The role of ordinary text in a document."""
ANSWER = 1
"""The role of text that the models must learn to generate."""
RECALL = 2
"""The role of an attribute right after a name, on which the early layers are trained too."""

Document = list[tuple[str, int]]
"""Pieces of text with their roles; the document is their concatenation."""


@dataclass(frozen=True)
class Relation:
    """One relation of the world.

    Attributes:
        name: Identifier, such as `birthplace`.
        subject_kind: Kind of its subjects, such as `person` or `company`.
        object_kind: Kind of its objects.
        cardinality: `one_to_one`, `many_to_one` or `one_to_many`.
        phrase: A noun phrase with `{}` for the subject, used to compose questions.
        statements: Wordings with `{}` for the subject that the object completes.
        questions: Question forms with `{}` for the subject.
        inverse: Name of the inverse relation, if the corpus states it.
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
        """Return the question forms as prompts that the answer completes."""
        return tuple(f"Question: {question} Answer:" for question in self.questions)


def _relations() -> tuple[Relation, ...]:
    """Read the relations and their wordings."""
    path = Path(__file__).with_name("relations.json")
    records: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    for record in records:
        record.update({name: tuple(record[name]) for name in ("statements", "questions")})
    return tuple(Relation(**record) for record in records)


RELATIONS = _relations()
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

PROFESSIONS = list(OCCUPATIONS)
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
    """Return every word of the fixed texts, for the tokenizer's vocabulary."""
    texts = [text for relation in RELATIONS for text in relation.statements + relation.questions]
    texts += [relation.phrase for relation in RELATIONS]
    texts += [OTHER_WORK_PROMPT, *ALIAS_STATEMENTS, *PHONE_STATEMENTS]
    texts += PROFESSIONS + SPORTS + INSTRUMENTS + LANGUAGES + GENRES + INDUSTRIES
    texts += COMPANY_TYPES + WORK_ADJECTIVES + WORK_NOUNS + TITLES + NICKNAMES
    return texts + SPEECH_WORDS
