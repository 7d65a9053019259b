"""What an edit entails: the edits that follow from it by rules, from other edits and the model.

From "the spouse of A is B" it follows that the spouse of B is A, that the same holds of A under
each other name, and that the birthplace of the spouse of A is the birthplace of B. Rules say what
follows (:mod:`emend.ledger.rules`); where a step needs another fact, it comes from the edits
that are known, and only else from the model, if that is sure. Nothing here loads torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from emend.edits import Edit, check_edits
from emend.edits.joining import joined
from emend.errors import InvalidInput
from emend.ledger._knowledge import Fact, Knowledge
from emend.ledger.rules import Relation, Rules

Ask = Callable[[str], tuple[str, float]]
"""Gives the model's answer to a prompt and its probability, from 0 to 1."""

MOST = 100_000
"""Derived edits at most: more is a file of rules gone wrong."""


@dataclass(frozen=True)
class Derived:
    """An edit that follows from another.

    Attributes:
        edit: The edit; its id begins with that of its parent.
        parent: Id of the edit that it follows from.
        rule: "inverse", "vacant", "alias" or "composition".
        because: What it was concluded from, in words.
    """

    edit: Edit
    parent: str
    rule: str
    because: str


@dataclass(frozen=True)
class Skipped:
    """What would follow, but is not proposed.

    Attributes:
        parent: Id of the edit that it would follow from.
        rule: As in `Derived`.
        text: The statement, or the question that could not be answered.
        target: The object, or None where it is unknown.
        reason: Why not, in one line.
    """

    parent: str
    rule: str
    text: str
    target: str | None
    reason: str


@dataclass(frozen=True)
class Entailment:
    """What follows from some edits.

    Attributes:
        derived: In the order of the edits, parents before what follows from them.
        skipped: What was left out, with reasons.
    """

    derived: tuple[Derived, ...]
    skipped: tuple[Skipped, ...]


def entail(
    edits: Edit | Iterable[Edit],
    rules: Rules,
    *,
    ask: Ask | None = None,
    known: Iterable[Edit] = (),
    depth: int = 1,
) -> Entailment:
    """Derive the edits that some edits entail.

    The result depends on the arguments alone: same edits, rules, known edits and answers, same
    derived edits with the same ids.

    Args:
        edits: What to start from.
        rules: What follows from what.
        ask: Asks the unedited model; without it only what edits say is known.
        known: Other edits that hold, such as the active ones of a ledger.
        depth: How many steps; with 2 also what follows from what follows, and so on.

    Returns:
        Derived edits that conflict with nothing, and what was skipped with reasons.

    Raises:
        InvalidInput: No edits, a depth below 1, or more derived edits than can be meant.
    """
    edits = check_edits([edits] if isinstance(edits, Edit) else edits)
    if depth < 1:
        raise InvalidInput(f"depth is {depth}, expected 1 or more: raise it")
    reasoner = _Reasoner(rules, Knowledge(rules, (*known, *edits), ask))
    level = [(edit, "") for edit in edits]
    for _ in range(depth):
        level = [found for edit, rule in level for found in reasoner.step(edit, rule)]
    return Entailment(tuple(reasoner.derived), tuple(reasoner.skipped))


@dataclass(frozen=True)
class _Conclusion:
    """A statement about `subject` that would follow; `fact` None where its target is unknown."""

    rule: str
    suffix: str
    subject: str
    relation: str
    prompts: tuple[str, ...]
    fact: Fact
    original: str | None = None


class _Reasoner:
    """Draws conclusions and keeps those that can stand.

    Args:
        rules: What follows from what.
        knowledge: What holds; grows by what is derived.
    """

    def __init__(self, rules: Rules, knowledge: Knowledge) -> None:
        self.rules, self.knowledge = rules, knowledge
        self.derived: list[Derived] = []
        self.skipped: list[Skipped] = []

    def step(self, edit: Edit, rule: str) -> list[tuple[Edit, str]]:
        """Keep what follows from an edit in one step; the edits to go on from.

        Args:
            edit: The edit.
            rule: The rule that it was itself derived by, or empty. Of what follows by an alias
                nothing further is derived, and no inverse of what is derived: it would lead back.
        """
        relation = self.rules.relation_of(edit)
        found: list[tuple[Edit, str]] = []
        if rule == "alias" or (relation is not None and relation.alias):
            return found
        if rule == "" and relation is not None:
            # The partners of before are looked up first: then the inverse is among what is known.
            for conclusion in list(self._inverse(edit, relation)):
                found += self._keep(edit, conclusion)
        if rule in ("", "inverse") and relation is not None:
            for conclusion in self._compositions(edit, relation):
                found += self._keep(edit, conclusion)
        for conclusion in self._aliases(edit):
            found += self._keep(edit, conclusion)
        return found

    def _inverse(self, edit: Edit, relation: Relation) -> Iterator[_Conclusion]:
        if relation.inverse is None:
            return
        back = self.rules.relations[relation.inverse]
        subject, target = edit.subject, edit.target.strip()
        said = Fact(subject, f"{_quoted(edit)} turned round")
        yield _Conclusion("inverse", "inverse", target, back.name, back.prompts, said)
        former = (edit.original or "").strip()
        if back.vacant is not None and former and former != target:
            why = f"was the {relation.name} of {subject}, which is now {target}"
            fact = Fact(back.vacant, why)
            yield _Conclusion("vacant", "former", former, back.name, back.prompts, fact)
        if relation.vacant is None:
            return
        partner = self.knowledge.find(target, back)
        if partner.target is not None and self.knowledge.differ(partner.target, subject):
            fact = Fact(relation.vacant, f"was of {target}, which is now of {subject}")
            yield _Conclusion(
                "vacant", "displaced", partner.target, relation.name, relation.prompts, fact
            )

    def _compositions(self, edit: Edit, relation: Relation) -> Iterator[_Conclusion]:
        subject, target = edit.subject, edit.target.strip()
        for rule in self.rules.compositions:
            if rule.first == relation.name:
                fact = self.knowledge.find(target, self.rules.relations[rule.then])
                suffix = rule.name.partition(".")[2]
                yield _Conclusion("composition", suffix, subject, rule.name, rule.prompts, fact)
            if rule.then != relation.name:
                continue
            # The other way: what is known to lead to this edit's subject goes on to its target.
            for other in self.knowledge.leading_to(subject, rule.first):
                fact = Fact(target, f"{_quoted(other)} (edit {other.id}), and {_quoted(edit)}")
                suffix = f"{rule.name}/{_slug(other.subject)}"
                yield _Conclusion(
                    "composition", suffix, other.subject, rule.name, rule.prompts, fact
                )

    def _aliases(self, edit: Edit) -> Iterator[_Conclusion]:
        for name in self.knowledge.names_of(edit.subject):
            fact = Fact(edit.target, f"{name} is another name of {edit.subject}")
            suffix, relation = f"alias-{_slug(name)}", edit.relation or ""
            yield _Conclusion(
                "alias", suffix, name, relation, (edit.prompt,), fact, original=edit.original
            )

    def _keep(self, parent: Edit, found: _Conclusion) -> list[tuple[Edit, str]]:
        """Keep the edits of a conclusion that conflict with nothing, one for each wording."""
        kept: list[tuple[Edit, str]] = []
        if found.fact.target is None:
            text = found.prompts[0].replace("{}", found.subject)
            self._skip(parent, found.rule, text, None, found.fact.because)
            return kept
        for number, prompt in enumerate(found.prompts, 1):
            end = "" if number == 1 else f"-{number}"
            edit = Edit(
                prompt,
                found.subject,
                found.fact.target,
                original=found.original,
                id=f"{parent.id}/{found.suffix}{end}",
                relation=found.relation or None,
            )
            state, reason = self.knowledge.standing(edit, parent)
            if state == "there":
                kept.append((edit, found.rule))
            if state == "new":
                if len(self.derived) >= MOST:
                    raise InvalidInput(
                        f"more than {MOST:,} edits follow, expected fewer: lower the depth or "
                        "take rules out"
                    )
                self.knowledge.learn(edit)
                self.derived.append(Derived(edit, parent.id, found.rule, found.fact.because))
                kept.append((edit, found.rule))
            elif reason:
                self._skip(parent, found.rule, edit.text, edit.target.strip(), reason)
        return kept

    def _skip(self, parent: Edit, rule: str, text: str, target: str | None, reason: str) -> None:
        self.skipped.append(Skipped(parent.id, rule, text, target, reason))


def _quoted(edit: Edit) -> str:
    return f'"{joined(edit.text, edit.target)}"'


def _slug(name: str) -> str:
    """Write a name as a part of an id: letters and digits, joined by dashes."""
    return re.sub(r"\W+", "-", name).strip("-").casefold() or "name"
