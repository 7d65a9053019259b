"""The data of made probes: names by kind, relations with wordings, and prompts filled with them.

The JSON files of this room hold names and prompts, not answers: every answer comes from the
unedited model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emend.edits import Edit, normalised
from emend.errors import InvalidInput
from emend.models import chat_prompt

_HERE = Path(__file__).parent
PERSON = "person"
_FRONTS = ("It is well known that {}", "Here is a fact that everybody should know: {}")
_MOST_WORDINGS = 3


@dataclass(frozen=True)
class Relation:
    """A relation with its wordings.

    Attributes:
        name: Its name.
        family: Relations of one family depend on one another: an edit of one may change all.
        kinds: Kinds of its subjects.
        patterns: Regular expressions of its prompts, in lower case with `{}` for the subject.
        prompts: Wordings that the answer completes, the most usual first.
        question: A question with the same answer.
    """

    name: str
    family: str
    kinds: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    prompts: tuple[str, ...]
    question: str


@cache
def relations() -> tuple[Relation, ...]:
    """Return all relations; the first that matches a prompt counts."""
    return tuple(
        Relation(
            one["name"],
            one.get("family", one["name"]),
            _with_people(one["kinds"]),
            tuple(re.compile(pattern) for pattern in one["match"]),
            tuple(one["prompts"]),
            one["question"],
        )
        for one in read("relations.json")["relations"]
    )


def relation_of(prompt: str, subject: str = "") -> Relation | None:
    """Find the relation of an edit's prompt by its words.

    Args:
        prompt: The prompt with its `{}`.
        subject: The subject; its kind decides between several relations.

    Returns:
        The relation; None if no wording and no pattern matches.
    """
    text = " ".join(prompt.lower().split())
    exact = [one for one in relations() if text in (each.lower() for each in one.prompts)]
    found = exact + [one for one in relations() if any(p.search(text) for p in one.patterns)]
    known = set(kinds_of(subject))
    fitting = (one for one in found if known & set(one.kinds))
    return next(fitting, found[0] if found else None)


@cache
def general_prompts() -> tuple[str, ...]:
    """Return prompts that fit every subject."""
    return tuple(read("relations.json")["general"])


@cache
def kinds() -> dict[str, tuple[str, ...]]:
    """Return names by kind."""
    found: dict[str, list[str]] = read("kinds.json")["kinds"]
    return {kind: tuple(names) for kind, names in found.items()}


def kinds_of(name: str) -> tuple[str, ...]:
    """Return the kinds whose lists contain a name, with or without its article."""
    return _kinds_by_name().get(_bare(name), ())


def names_of(wanted: Iterable[str], most: int) -> list[str]:
    """Return up to `most` names, taken from several kinds in turn."""
    lists = [kinds()[kind] for kind in wanted]
    longest = max(map(len, lists), default=0)
    names = dict.fromkeys(
        names[place] for place in range(longest) for names in lists if place < len(names)
    )
    return list(names)[:most]


@cache
def kinds_to_try() -> tuple[str, ...]:
    """Return the common kinds, which an unknown subject may have."""
    return tuple(read("kinds.json")["common"])


@cache
def people_kinds() -> tuple[str, ...]:
    """Return the kinds that are people."""
    return tuple(read("kinds.json")["people"])


@cache
def plain_text() -> tuple[str, ...]:
    """Return the paragraphs whose perplexity is compared."""
    return tuple(read("plain.json")["texts"])


def same_name(one: str, other: str) -> bool:
    """Return whether two names are equal, ignoring case, form and article."""
    return _bare(one) == _bare(other)


@cache
def _kinds_by_name() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, names in kinds().items():
        for name in names:
            found[_bare(name)] = (*found.get(_bare(name), ()), kind)
    return found


def _bare(name: str) -> str:
    return normalised(name).removeprefix("the ")


def _with_people(names: Iterable[str]) -> tuple[str, ...]:
    people = people_kinds()
    return tuple(kind for name in names for kind in (people if name == PERSON else (name,)))


@cache
def read(name: str) -> Any:
    """Return the content of a data file of this room."""
    return json.loads((_HERE / name).read_text("utf-8"))


def filled(template: str, subject: str) -> str:
    """Fill a prompt with a subject, whose article is capitalised at the beginning only."""
    before, _, after = template.partition("{}")
    if before.strip() and not before.rstrip().endswith((".", ":")):
        article, _, rest = subject.partition(" ")
        subject = f"the {rest}" if article == "The" and rest else subject
    elif not before.strip():
        word = subject.split()[0]
        subject = word.capitalize() + subject[len(word) :] if word.islower() else subject
    return before + subject + after


def rephrasings(edit: Edit, relation: Relation | None) -> list[str]:
    """Return other statements of an edit's fact that its target completes."""
    if relation is None:
        return [front.replace("{}", _lowered(edit)) for front in _FRONTS]
    texts = (filled(prompt, edit.subject) for prompt in relation.prompts)
    other = [text for text in texts if normalised(text) != normalised(edit.text)]
    return other[:_MOST_WORDINGS]


def question_form(edit: Edit, relation: Relation | None) -> str | None:
    """Return the edit as a question that ends where a short answer begins."""
    if relation is None:
        return None
    return f"Question: {filled(relation.question, edit.subject)}\nAnswer:"


def chat_form(edit: Edit, relation: Relation | None, tokenizer: Any) -> str | None:
    """Return a chat in which the assistant has begun to answer with the edit's own words.

    None if the tokenizer has no chat template, or one that refuses a single user turn.
    """
    asked = f"Tell me about {filled('x {}', edit.subject)[2:]}."
    if relation is not None:
        asked = filled(relation.question, edit.subject)
    return chat_about(edit, asked, tokenizer)


def chat_about(edit: Edit, asked: str, tokenizer: Any) -> str | None:
    """Return a chat of a user's turn and an answer that begins as the edit; see `chat_form`."""
    try:
        chat = chat_prompt(tokenizer, asked)
    except InvalidInput:
        return None
    return f"{chat}{edit.text}"


def _lowered(edit: Edit) -> str:
    """Return the edit's text as it is written inside a sentence."""
    before = edit.prompt.partition("{}")[0]
    article, _, rest = edit.text.partition(" ")
    common = article == "The" and (before.strip() or edit.subject.startswith("The "))
    return f"the {rest}" if common else edit.text
