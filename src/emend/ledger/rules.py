"""Rules of what follows from a fact: inverses, other names, and one relation after another.

A rules file names the relations that edits are about, each with the wordings in which it is said
and asked, and says how relations hang together. From it :func:`emend.ledger.entailment` derives
the edits that an edit entails. docs/closure.md has the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from emend._parse import read_document
from emend._validate import Problems
from emend.edits import Edit
from emend.ledger._rules_parts import Composition, Relation, parse_parts

__all__ = ["SURE", "Composition", "Relation", "Rules", "lab_rules", "parse_rules", "read_rules"]

SURE = 0.8
"""Mean probability from which on an answer of the model is taken, where a file does not say."""


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
        """The relation that an edit is about: the one that it names, else that of its prompt."""
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
    """The rules that a plain record (mapping) describes.

    Args:
        record: What a rules file holds.
        where: What the record is called in messages.

    Raises:
        BrokenFile: Something in it cannot be used; there is a line about each thing.
    """
    return _parsed(record, Problems(where))


def _parsed(record: object, problems: Problems) -> Rules:
    parts = parse_parts(record, problems)
    problems.check()
    assert parts is not None  # or there would be a problem
    sure = SURE if parts.sure is None else parts.sure
    return Rules(parts.relations, parts.compositions, parts.aliases, sure)


def lab_rules() -> Rules:
    """The rules of the lab's world; the other names of its people are those that the world has."""
    from emend import lab

    rules = read_rules(Path(lab.__file__).parent / "rules.json")
    return replace(rules, aliases=dict(lab.shipped_world().aliases))
