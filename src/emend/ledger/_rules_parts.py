"""From the plain content of a rules file to its parts, with everything checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

from emend._validate import Fault, Problems, Record, name_fault, shown
from emend.edits import prompt_fault
from emend.errors import nearest

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
    """The parts of a record; None where it is no object. What cannot be used is noted."""
    top = Record.of(record, problems, TOP, what="the file")
    if top is None:
        return None
    relations = {
        name: relation
        for name, value in top.mapping("relations").items()
        if (relation := _relation(name, value, problems)) is not None
    }
    if not relations and not problems:
        top.note("relations", Fault("has 0 entries", "at least one", "add one"))
    _check_inverses(relations, problems)
    compositions, aliases = _compositions(top, relations), _aliases(top)
    return Parts(relations, compositions, aliases, _sure(top))


def _relation(name: str, value: object, problems: Problems) -> Relation | None:
    place = f"relations.{name}"
    given = Record.of(value, problems, RELATION, place=place)
    if given is None:
        return None
    if "." in name or "/" in name:
        problems.note(Fault("has '.' or '/' in its name", "none", "rename it"), place)
    prompts = given.texts("prompts", prompt_fault, least=1, distinct=True)
    ask = prompts
    if given.has("ask"):
        ask = given.texts("ask", prompt_fault, least=1, distinct=True)
    phrase = given.text("phrase", prompt_fault, required=False)
    inverse, vacant = (
        given.text(part, name_fault, required=False) for part in ("inverse", "vacant")
    )
    return Relation(name, prompts, ask, phrase, inverse, vacant, given.flag("alias", False))


def _check_inverses(relations: Mapping[str, Relation], problems: Problems) -> None:
    for relation in relations.values():
        place, back = f"relations.{relation.name}.inverse", relation.inverse
        if back is None:
            continue
        fault = _relation_fault(back, relations)
        if fault is None and relations[back].inverse not in (None, relation.name):
            found = f"is {back!r}, whose own inverse is {relations[back].inverse!r}"
            fault = Fault(found, repr(relation.name), "make the two lead to each other")
        problems.note(fault, place)


def _compositions(top: Record, relations: Mapping[str, Relation]) -> tuple[Composition, ...]:
    found: dict[tuple[str, str], Composition] = {}
    check = partial(_relation_fault, known=relations)
    for given in top.records("compositions", COMPOSITION):
        firsts, thens = (given.texts(name, check, least=1) for name in ("first", "then"))
        forms = given.texts("prompts", prompt_fault, least=1, distinct=True)
        for first, then in product(firsts, thens):
            if (first, then) in found:
                twice = Fault(f"holds {first}, then {then} again", "each pair once", "remove one")
                given.problems.note(twice, given.place)
            phrases = relations[first].phrase, relations[then].phrase
            if phrases[0] is None or phrases[1] is None:
                without = first if phrases[0] is None else then
                missing = Fault(f"leads over {without!r}, which has no phrase", "one", "add phrase")
                given.problems.note(missing, given.place)
                continue
            phrase = phrases[1].replace("{}", phrases[0])
            prompts = tuple(form.replace("{}", phrase) for form in forms)
            found[first, then] = Composition(first, then, prompts)
    return tuple(found.values())


def _aliases(top: Record) -> dict[str, tuple[str, ...]]:
    given = Record(top.mapping("aliases"), top.problems, "aliases")
    found = {name: given.texts(name, name_fault) for name in given.values}
    owners: dict[str, str] = {}
    for name, others in found.items():
        for one in others:
            if one == name:
                given.note(name, Fault("is an alias of itself", "another name", "remove it"))
            if owners.setdefault(one, name) != name:
                twice = f"holds {one!r}, which names {owners[one]!r} too"
                given.note(name, Fault(twice, "one owner of a name", "remove it"))
    return found


def _sure(top: Record) -> float | None:
    if not top.has("sure"):
        return None
    sure = top.number("sure", most=1)
    if sure == 0 and top.values["sure"] == 0:
        top.note("sure", Fault("is 0", "a number above 0 and up to 1", "mend it"))
    return sure


def _relation_fault(value: object, known: Mapping[str, Relation]) -> Fault | None:
    fault = name_fault(value)
    if fault is not None or value in known:
        return fault
    near = nearest(str(value), known)
    remedy = f"did you mean {near!r}?" if near else "add it to the relations"
    return Fault(f"is {shown(value)}", "a relation of the file", remedy)
