"""A question over several facts of which some are edited: the answer must follow the edits."""

from __future__ import annotations

from dataclasses import dataclass

from emend._validate import check_text
from emend.edits._edit import Edit
from emend.errors import InvalidInput


@dataclass(frozen=True)
class SingleHop:
    """One fact of a chain, as it is after the edits.

    Attributes:
        question: Asks for it, as a whole sentence.
        cloze: The statement up to the answer.
        answers: The accepted answers, the usual one first.
        edited: Whether one of the edits changes it.
    """

    question: str
    cloze: str
    answers: tuple[str, ...]
    edited: bool

    def __post_init__(self) -> None:
        check_text("question of a hop", self.question)
        check_text("cloze of a hop", self.cloze)
        _check_answers("answers of a hop", self.answers)


@dataclass(frozen=True)
class MultiHop:
    """An instance of a multi-hop set: what is edited, what is asked, what follows.

    Attributes:
        id: Names it in results.
        edits: What is changed, at least one edit.
        questions: The same question in several forms, at least one.
        answers: The accepted answers after the edits, the usual one first.
        old_answers: Those of before.
        hops: The facts that lead to the answer after the edits, in order.

    Raises:
        InvalidInput: A part is missing.
    """

    id: str
    edits: tuple[Edit, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    old_answers: tuple[str, ...]
    hops: tuple[SingleHop, ...]

    def __post_init__(self) -> None:
        check_text("id", self.id, trimmed=True)
        for name in ("edits", "questions", "hops"):
            if not getattr(self, name):
                raise InvalidInput(f"multi-hop instance {self.id} has no {name}, expected some")
        for question in self.questions:
            check_text("question", question)
        _check_answers("answers", self.answers)
        _check_answers("old answers", self.old_answers)


def _check_answers(name: str, answers: tuple[str, ...]) -> None:
    if not answers:
        raise InvalidInput(f"{name}: none are given, expected at least one")
    for answer in answers:
        check_text(name, answer)
