"""Rules of what follows from a fact: inverses, other names, and one relation after another.

A rules file names the relations that edits are about, each with the wordings in which it is stated
and asked, and says how relations hang together. From it :func:`emend.ledger.entailment` derives
the edits that an edit entails. docs/entailment.md has the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

from emend._parse import read_document
from emend._validate import Fault, Problems, Record, name_fault, shown
from emend.edits import Edit, prompt_fault
from emend.errors import nearest

SURE = 0.8
"""Mean probability from which on an answer of the model is taken, where a file does not say."""


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
        vacant: The object of a subject whose partner went to another ("nobody"), or None.
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


@dataclass(frozen=True)
class Rules:
    """What follows from what.

    Attributes:
        relations: By name.
        compositions: Which relation may be asked of the object of which.
        aliases: Other names, by the name that they stand for.
        sure: An answer of the model is taken if its probability, the mean over the relation's
            asking prompts, is at least this; from 0 to 1.
    """

    relations: Mapping[str, Relation]
    compositions: tuple[Composition, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    sure: float = SURE

    def relation_of(self, edit: Edit) -> Relation | None:
        """Find the relation of an edit: the one that it names, else that of its prompt."""
        if edit.relation is not None:
            return self.relations.get(edit.relation)
        return next((one for one in self.relations.values() if edit.prompt in one.wordings), None)


def read_rules(path: str | os.PathLike[str]) -> Rules:
    """Read a rules file.

    Args:
        path: A `.json` file, or `.yaml` or `.yml` (which needs the extra `yaml`).

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or has another suffix.
        BrokenFile: Something in it cannot be used; there is a line about each thing.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    document = read_document(Path(path), "rules")
    return _parsed(document.content, Problems(str(path), document.line_of))


def parse_rules(record: object, where: str = "rules") -> Rules:
    """Parse the rules that a plain record (mapping) describes.

    Args:
        record: What a rules file holds.
        where: What the record is called in messages.

    Raises:
        BrokenFile: Something in it cannot be used; there is a line about each thing.
    """
    return _parsed(record, Problems(where))


def lab_rules() -> Rules:
    """Read the rules of the lab's world, with the other names of its people."""
    from emend import lab

    rules = read_rules(Path(lab.__file__).parent / "rules.json")
    return replace(rules, aliases=dict(lab.shipped_world().aliases))


def _parsed(record: object, problems: Problems) -> Rules:
    """Make rules of a file's content; note in ``problems`` everything that cannot be used."""
    rules = Rules({})
    top = Record.of(record, problems, TOP, what="the file")
    if top is not None:
        relations = _relations(top)
        rules = Rules(relations, _compositions(top, relations), _aliases(top), _sure(top))
    problems.check()
    return rules


def _relations(top: Record) -> dict[str, Relation]:
    relations = {
        name: relation
        for name, value in top.mapping("relations").items()
        if (relation := _relation(name, value, top.problems)) is not None
    }
    if not relations and not top.problems:
        top.note("relations", Fault("has 0 entries", "at least one", "add one"))
    _check_inverses(relations, top.problems)
    return relations


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


def _sure(top: Record) -> float:
    if not top.has("sure"):
        return SURE
    sure = top.number("sure", most=1)
    if sure == 0 and top.values["sure"] == 0:
        top.note("sure", Fault("is 0", "a number above 0 and up to 1", "fix it"))
    return sure


def _relation_fault(value: object, known: Mapping[str, Relation]) -> Fault | None:
    fault = name_fault(value)
    if fault is not None or value in known:
        return fault
    near = nearest(str(value), known)
    remedy = f"did you mean {near!r}?" if near else "add it to the relations"
    return Fault(f"is {shown(value)}", "a relation of the file", remedy)
