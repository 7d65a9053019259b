"""`Secret`: an answer that a model should no longer give, nor hold where an attack finds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from emend._validate import Fault, check_text, checked_parts, name_fault, refuse, shown
from emend.edits import Edit, Probe, normalised, prompt_fault, statements_of
from emend.errors import InvalidInput


@dataclass(frozen=True)
class Secret:
    """One fact to erase.

    A question that names no subject of its own is written with the prompt "{}" and the whole
    question as the subject, as an `Edit` is: methods that write at a subject refuse it, and those
    that need none (ft) take it.

    Attributes:
        prompt: The statement up to the answer, with exactly one `{}` in place of the subject.
        subject: The person or thing that the statement is about.
        answer: The secret: what the model gives as the answer now.
        false_answer: An answer to write in its place, for the defences that need one.
        paraphrases: The statement in other words, whole texts to be continued.
        neighbours: Questions about others whose answers must not change.
        id: The secret's name in patches and reports; by default a hash of prompt, subject, answer.

    Raises:
        InvalidInput: A field cannot be used; the message names it and what was expected.
    """

    prompt: str
    subject: str
    answer: str
    false_answer: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[Probe, ...] = ()
    id: str = ""

    def __post_init__(self) -> None:
        refuse("prompt", prompt_fault(self.prompt))
        refuse("subject", name_fault(self.subject))
        check_text("answer", self.answer)
        if self.false_answer is not None:
            check_text("false_answer", self.false_answer)
            refuse("false_answer", self._same_fault(self.false_answer))
        paraphrases = checked_parts("paraphrases", self.paraphrases, str, "texts")
        for text in paraphrases:
            check_text("paraphrase", text)
        object.__setattr__(self, "paraphrases", paraphrases)
        neighbours = checked_parts("neighbours", self.neighbours, Probe, "emend.Probe objects")
        object.__setattr__(self, "neighbours", neighbours)
        if self.id != "":
            refuse("id", name_fault(self.id))
        else:
            object.__setattr__(self, "id", self._default_id())

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)

    def edit(self, target: str) -> Edit:
        """Return the edit that gives another answer, with the same id.

        Args:
            target: The answer in place of the secret. The secret itself is allowed, for an aim
                that lowers its probability.
        """
        rephrases = tuple(Probe("rephrase", text, (target,)) for text in self.paraphrases)
        return Edit(
            *(self.prompt, self.subject, target),
            original=self.answer,
            id=self.id,
            probes=(*rephrases, *self.neighbours),
        )

    def _same_fault(self, answer: str) -> Fault | None:
        if normalised(answer) != normalised(self.answer):
            return None
        return Fault(f"is the answer itself, {shown(answer)}", "another", "give a false one")

    def _default_id(self) -> str:
        content = json.dumps([self.prompt, self.subject, self.answer], ensure_ascii=False)
        return "secret-" + hashlib.sha256(content.encode()).hexdigest()[:10]


def secrets_from(edits: Iterable[Edit]) -> tuple[Secret, ...]:
    """Read edits as secrets: what the model says now is the secret, the target the false answer.

    Probes in other words (group "rephrase") are the paraphrases, probes of locality the neighbours.
    An edit with translations gives one secret for each language.

    Raises:
        InvalidInput: An edit has no `original`, or the target is that.
    """
    found: list[Secret] = []
    for edit in statements_of(edits):
        if edit.original is None:
            raise InvalidInput(
                f"edit {edit.id!r} has no original answer, expected the secret there: add "
                '"original" with what the model answers now'
            )
        paraphrases = tuple(probe.prompt for probe in edit.probes_of("rephrase"))
        found.append(
            Secret(
                *(edit.prompt, edit.subject, edit.original, edit.target),
                paraphrases=paraphrases,
                neighbours=edit.probes_of("locality"),
                id=edit.id,
            )
        )
    return tuple(found)


def check_secrets(secrets: Iterable[Secret]) -> tuple[Secret, ...]:
    """Return the secrets as a tuple.

    Raises:
        InvalidInput: There are none, other things than secrets, or two with the same id.
    """
    if isinstance(secrets, Secret):
        secrets = (secrets,)
    found = checked_parts("secrets", secrets, Secret, "emend.erasure.Secret objects")
    if not found:
        raise InvalidInput("there are no secrets, expected at least one")
    ids = [one.id for one in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"two secrets have the id {twice!r}, expected one for each: rename one")
    return found
