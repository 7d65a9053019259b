"""What emend knows of the world to make probes: kinds with names, relations with wordings.

The files beside this one hold no model's answers, only names and prompts: every answer comes from
the unedited model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emend.edits import normalised

_HERE = Path(__file__).parent
PERSON = "person"


@dataclass(frozen=True)
class Relation:
    """A relation with its wordings.

    Attributes:
        name: What it is called.
        family: Relations of one family follow from one another: an edit of one may change all.
        kinds: Kinds of its subjects.
        patterns: Regular expressions of its prompts, in lower case with `{}` for the subject.
        prompts: Wordings that the answer completes, the most usual first.
        question: The question that the answer answers.
    """

    name: str
    family: str
    kinds: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    prompts: tuple[str, ...]
    question: str


@cache
def relations() -> tuple[Relation, ...]:
    """Return all relations; of those that match a prompt the first counts."""
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
        subject: The subject; of several relations one of a kind that it belongs to is taken.

    Returns:
        The relation; None where no wording and no pattern matches.
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
    """Return the kinds whose names hold this one, with or without its article."""
    return _kinds_by_name().get(_bare(name), ())


def names_of(wanted: Iterable[str], most: int) -> list[str]:
    """Take names of several kinds in turn, the first of each first, up to a number."""
    lists = [kinds()[kind] for kind in wanted]
    longest = max(map(len, lists), default=0)
    names = dict.fromkeys(
        names[place] for place in range(longest) for names in lists if place < len(names)
    )
    return list(names)[:most]


@cache
def kinds_to_try() -> tuple[str, ...]:
    """Return what may be the kind of an unknown subject: the common kinds."""
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
    """Tell whether two names are equal but for case, form and article."""
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
    """Return what a data file of this room holds."""
    return json.loads((_HERE / name).read_text("utf-8"))
