"""From the plain content of a rules file to its parts, with everything checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

from emend._validate import check_text, refuse
from emend.edits._edit import prompt_fault
from emend.errors import InvalidInput, nearest
from emend.versioning._rules_file import Problems

TOP = ("sure", "relations", "compositions", "aliases")
RELATION = ("prompts", "ask", "phrase", "inverse", "vacant", "alias")
COMPOSITION = ("first", "then", "prompts")


@dataclass(frozen=True)
class Relation:
    """One relation.

    Attributes:
        name: Identifier, as in the field `relation` of edits.
        prompts: Statements with `{}` for the subject that the object completes; each of them
            makes a derived edit of its own.
        ask: Statements in which the model is asked; by default the prompts.
        phrase: A noun phrase with `{}` for the subject, "the capital of {}", or None.
        inverse: Name of the relation that leads back, itself where both sides mean the same
            (spouse); only where each side has one partner. None where nothing leads back.
        vacant: What shall be said of a subject whose object went to another ("nobody"), or None.
        alias: Whether the object is the same thing as the subject under another name.
    """

    name: str
    prompts: tuple[str, ...]
    ask: tuple[str, ...]
    phrase: str | None = None
    inverse: str | None = None
    vacant: str | None = None
    alias: bool = False

    @property
    def wordings(self) -> tuple[str, ...]:
        """All statements of it that are known."""
        return (*self.prompts, *self.ask)


@dataclass(frozen=True)
class Composition:
    """If `first` of s is t and `then` of t is u, then `prompts` about s are completed by u."""

    first: str
    then: str
    prompts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The relation of derived edits, such as `birthplace.country`."""
        return f"{self.first}.{self.then}"


class Parts(NamedTuple):
    """The parts of a rules file."""

    relations: dict[str, Relation]
    compositions: tuple[Composition, ...]
    aliases: dict[str, tuple[str, ...]]
    sure: float | None


def parse_parts(record: object, problems: Problems) -> Parts | None:
    """The parts of a record; what cannot be used is noted and left out."""
    top = _object("the file", record, TOP, problems)
    if top is None:
        return None
    relations: dict[str, Relation] = {}
    for name, value in _mapping("relations", top.get("relations"), problems).items():
        relation = _relation(name, value, problems)
        if relation is not None:
            relations[name] = relation
    if not relations and not problems.lines:
        problems.add("relations", "there are none, expected at least one: add one")
    _check_inverses(relations, problems)
    compositions = _compositions(top.get("compositions"), relations, problems)
    aliases = _aliases(top.get("aliases"), problems)
    return Parts(relations, compositions, aliases, _sure(top.get("sure"), problems))


def _relation(name: str, value: object, problems: Problems) -> Relation | None:
    place = f"relations.{name}"
    given = _object(place, value, RELATION, problems)
    if given is None:
        return None
    if "." in name or "/" in name:
        problems.add(place, "the name holds '.' or '/', expected none: rename it")
    prompts = _prompts(f"{place}.prompts", given.get("prompts"), problems)
    ask = prompts
    if given.get("ask") is not None:
        ask = _prompts(f"{place}.ask", given["ask"], problems)
    phrase = given.get("phrase")
    if phrase is not None and not _good_prompt(f"{place}.phrase", phrase, problems):
        return None
    for part in ("inverse", "vacant"):
        if given.get(part) is not None and not _good_text(f"{place}.{part}", given[part], problems):
            return None
    alias = given.get("alias", False)
    if not isinstance(alias, bool):
        problems.add(f"{place}.alias", f"is {_kind(alias)}, expected true or false")
        return None
    texts = [cast("str | None", given.get(part)) for part in ("phrase", "inverse", "vacant")]
    return Relation(name, prompts, ask, *texts, alias=alias)


def _check_inverses(relations: Mapping[str, Relation], problems: Problems) -> None:
    for relation in relations.values():
        place, back = f"relations.{relation.name}.inverse", relation.inverse
        if back is None:
            continue
        if back not in relations:
            problems.add(place, _unknown(back, relations))
        elif relations[back].inverse not in (None, relation.name):
            problems.add(
                place,
                f"is {back!r}, whose own inverse is {relations[back].inverse!r}, expected "
                f"{relation.name!r}: make the two lead to each other",
            )


def _compositions(
    value: object, relations: Mapping[str, Relation], problems: Problems
) -> tuple[Composition, ...]:
    found: dict[tuple[str, str], Composition] = {}
    for index, each in enumerate(_list("compositions", value, problems)):
        place = f"compositions[{index}]"
        given = _object(place, each, COMPOSITION, problems)
        if given is None:
            continue
        firsts = _names(f"{place}.first", given.get("first"), relations, problems)
        thens = _names(f"{place}.then", given.get("then"), relations, problems)
        forms = _prompts(f"{place}.prompts", given.get("prompts"), problems)
        for first, then in ((first, then) for first in firsts for then in thens):
            if (first.name, then.name) in found:
                problems.add(place, f"{first.name}, then {then.name} is there already: remove one")
            if first.phrase is None or then.phrase is None:
                without = first if first.phrase is None else then
                problems.add(f"{place}", f"relation {without.name!r} has no phrase: add one")
                continue
            phrase = then.phrase.replace("{}", first.phrase)
            prompts = tuple(form.replace("{}", phrase) for form in forms)
            made = Composition(first.name, then.name, prompts)
            found[first.name, then.name] = made
    return tuple(found.values())


def _aliases(value: object, problems: Problems) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for name, others in _mapping("aliases", value, problems).items():
        place = f"aliases.{name}"
        texts = [one for one in _list(place, others, problems) if _good_text(place, one, problems)]
        names = cast("list[str]", texts)
        for one in names:
            if one == name:
                problems.add(place, "a thing is no other name of itself: remove it")
            if owners.setdefault(one, name) != name:
                problems.add(place, f"{one!r} names {owners[one]!r} too, expected one: remove it")
        found[name] = tuple(names)
    return found


def _sure(value: object, problems: Problems) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        problems.add("sure", f"is {str(value)[:40]!r}, expected a number above 0 and up to 1")
        return None
    return float(value)


def _names(
    place: str, value: object, relations: Mapping[str, Relation], problems: Problems
) -> list[Relation]:
    """Relations named by one text or a list of texts."""
    given = [value] if isinstance(value, str) else _list(place, value, problems, least=1)
    found: list[Relation] = []
    for name in given:
        if isinstance(name, str) and name in relations:
            found.append(relations[name])
        elif _good_text(place, name, problems):
            problems.add(place, _unknown(cast(str, name), relations))
    return found


def _prompts(place: str, value: object, problems: Problems) -> tuple[str, ...]:
    given = _list(place, value, problems, least=1)
    good = [one for one in given if _good_prompt(place, one, problems)]
    texts = cast("list[str]", good)
    if len(set(texts)) < len(texts):
        problems.add(place, "one stands twice, expected each once: remove one")
    return tuple(texts)


def _list(place: str, value: object, problems: Problems, least: int = 0) -> list[object]:
    if value is None and not least:
        return []
    if value is None:
        problems.add(place, "is missing, expected a list of texts: add it")
        return []
    if not isinstance(value, list):
        problems.add(place, f"is {_kind(value)}, expected a list: put it in brackets")
        return []
    found = cast("list[object]", value)
    if len(found) < least:
        problems.add(place, "is empty, expected at least one text: add one")
    return found


def _mapping(place: str, value: object, problems: Problems) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.add(place, f"is {_kind(value)}, expected an object with names")
        return {}
    given = cast("dict[object, object]", value)
    return {
        cast(str, name): each for name, each in given.items() if _good_text(place, name, problems)
    }


def _object(
    place: str, value: object, known: tuple[str, ...], problems: Problems
) -> dict[str, object] | None:
    if not isinstance(value, dict):
        problems.add(place, f"is {_kind(value)}, expected an object with {', '.join(known)}")
        return None
    given = cast("dict[object, object]", value)
    for name in given:
        if name not in known:
            near = nearest(str(name), known)
            hint = f"did you mean {near!r}?" if near else "remove it"
            there = ", ".join(known)
            problems.add(place, f"unknown field {str(name)[:40]!r}, expected {there}: {hint}")
    return {str(name): each for name, each in given.items() if name in known}


def _good_prompt(place: str, value: object, problems: Problems) -> bool:
    try:
        refuse("prompt", prompt_fault(value))
    except InvalidInput as error:
        problems.add(place, str(error))
        return False
    return True


def _good_text(place: str, value: object, problems: Problems) -> bool:
    try:
        check_text("a text", value, trimmed=True)
    except InvalidInput as error:
        problems.add(place, str(error))
        return False
    return True


def _unknown(name: str, known: Mapping[str, Relation]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else "add it to the relations"
    return f"names {name[:40]!r}, which is no relation of the file: {hint}"


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "a text", "bool": "true or false"}
    return "missing" if value is None else names.get(type(value).__name__, "a number")
