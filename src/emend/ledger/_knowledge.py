"""What is known when edits are derived: other edits, other names, and what the model is sure of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from emend.edits import Edit, Keys, keys_of, normalised
from emend.edits.joining import joined
from emend.ledger.rules import Relation, Rules

Standing = Literal["new", "there", "no"]


class Fact(NamedTuple):
    """What a statement is completed by, and how that is known.

    Attributes:
        target: The object, or None where it is not known.
        because: Where it comes from, or why it is not known; in words.
    """

    target: str | None
    because: str


class Knowledge:
    """What holds, by subject and relation.

    Args:
        rules: The rules, with the wordings of each relation and the other names.
        edits: What holds, in any order; the first one of a statement is taken.
        ask: Gives the model's answer to a prompt and its probability; or None.
    """

    def __init__(
        self, rules: Rules, edits: Iterable[Edit], ask: Callable[[str], tuple[str, float]] | None
    ) -> None:
        self._rules, self._ask = rules, ask
        self._asked: dict[str, tuple[str, float]] = {}
        self._by_id: dict[str, Edit] = {}
        self._by_text: dict[str, Edit] = {}
        self._by_statement: dict[tuple[str, str], Edit] = {}
        self._by_target: dict[tuple[str, str], list[Edit]] = {}
        self._main_name: dict[str, str] = {}  # normalised other name -> name
        self._names: dict[str, dict[str, str]] = {}  # normalised name -> its other names
        self._given: set[str] = set()
        for name, others in rules.aliases.items():
            for other in others:
                self._name(other, name)
        for edit in edits:
            if edit.id not in self._by_id:
                self.learn(edit)
                self._given.add(edit.id)

    def learn(self, edit: Edit) -> None:
        """Take an edit among what holds."""
        keys = keys_of(edit)
        relation = self._rules.relation_of(edit)
        self._by_id.setdefault(edit.id, edit)
        self._by_text.setdefault(keys.text, edit)
        name = self._relation_key(edit, keys)
        if name is not None:
            self._by_statement.setdefault((keys.subject, name), edit)
            self._by_target.setdefault((keys.target, name), []).append(edit)
        if relation is not None and relation.alias:
            self._name(edit.subject, edit.target.strip())

    def standing(self, edit: Edit, parent: Edit) -> tuple[Standing, str]:
        """Decide whether a derived edit can be proposed, or give the reason not ("": not reported).

        It is "there" if it is known under the same id, so that one may go on from it.
        """
        keys = keys_of(edit)
        same_id = self._by_id.get(edit.id)
        if same_id is not None and keys_of(same_id) == keys:
            given = edit.id in self._given
            return "there", "it is in the ledger already" if given else ""
        if same_id is not None:
            said = joined(same_id.text, same_id.target)
            return "no", f"an edit with its id says {said!r}: take that one out first"
        for other in self._sayings(edit, keys):
            there = keys_of(other)
            if there.target != keys.target:
                said = joined(other.text, other.target)
                return "no", f"conflicts with edit {other.id}: {said!r}"
            same_text = there.text == keys.text
            if other.id in self._given and (same_text or not _is_below(other.id, parent.id)):
                return "no", "" if other is parent else f"edit {other.id} says so already"
            if same_text:
                return "no", ""  # another way to what follows already
        return "new", ""

    def find(self, subject: str, relation: Relation) -> Fact:
        """Find the object of a subject in a relation: by known edits, else by the model if sure."""
        edit = self._by_statement.get((normalised(subject), normalised(relation.name)))
        if edit is not None:
            said = joined(edit.text, edit.target)
            return Fact(edit.target.strip(), f'"{said}" (edit {edit.id})')
        question = relation.ask[0].replace("{}", subject)
        if self._ask is None:
            return Fact(None, f"no edit completes {question!r}: give a model to ask")
        answer, probability = self._answer(subject, relation)
        if answer is None or probability < self._rules.sure:
            return Fact(None, f"the model is not sure of {question!r} ({probability:.2f})")
        if relation.inverse is not None:
            back, _ = self._answer(answer, self._rules.relations[relation.inverse])
            if back is None or self.differ(back, subject):
                return Fact(None, f"the model says {question!r} {answer!r}, but not the reverse")
        return Fact(answer, f'"{joined(question, answer)}" (the model, {probability:.2f})')

    def differ(self, one: str, other: str) -> bool:
        """Return whether two names are of different things, as far as is known."""
        return self._main(one) != self._main(other)

    def leading_to(self, target: str, relation: str) -> tuple[Edit, ...]:
        """Return the edits known at the start whose object in a relation is `target`."""
        found = self._by_target.get((normalised(target), normalised(relation)), ())
        return tuple(edit for edit in found if edit.id in self._given)

    def names_of(self, subject: str) -> tuple[str, ...]:
        """Return the other names of a subject, its main name first."""
        key = normalised(subject)
        main = self._main_name.get(key, subject)
        names = {normalised(main): main, **self._names.get(normalised(main), {})}
        return tuple(name for each, name in names.items() if each != key)

    def _name(self, other: str, name: str) -> None:
        """Note another name; what edits say wins over the file, for it comes later."""
        key = normalised(other)
        if key in self._main_name:
            self._names[normalised(self._main_name[key])].pop(key)
        self._main_name[key] = name
        self._names.setdefault(normalised(name), {})[key] = other

    def _main(self, name: str) -> str:
        return normalised(self._main_name.get(normalised(name), name))

    def _relation_key(self, edit: Edit, keys: Keys) -> str | None:
        relation = self._rules.relation_of(edit)
        return keys.relation if relation is None else normalised(relation.name)

    def _sayings(self, edit: Edit, keys: Keys) -> Iterator[Edit]:
        """Yield what is known of the same statement: by its text, then by subject and relation."""
        if keys.text in self._by_text:
            yield self._by_text[keys.text]
        name = self._relation_key(edit, keys)
        if name is not None and (keys.subject, name) in self._by_statement:
            yield self._by_statement[keys.subject, name]

    def _answer(self, subject: str, relation: Relation) -> tuple[str | None, float]:
        """Return the model's answer over a relation's asking prompts, and its mean probability."""
        sums: dict[str, tuple[str, float]] = {}
        for prompt in relation.ask:
            answer, probability = self._one_answer(prompt.replace("{}", subject))
            if answer:
                first, total = sums.get(normalised(answer), (answer, 0.0))
                sums[normalised(answer)] = (first, total + probability)
        if not sums:
            return None, 0.0
        best, total = max(sums.values(), key=lambda each: each[1])
        return best, total / len(relation.ask)

    def _one_answer(self, prompt: str) -> tuple[str, float]:
        if prompt not in self._asked and self._ask is not None:
            answer, probability = self._ask(prompt)
            self._asked[prompt] = (answer.strip(), probability)
        return self._asked[prompt]


def _is_below(id: str, parent: str) -> bool:
    return id.startswith(f"{parent}/")
