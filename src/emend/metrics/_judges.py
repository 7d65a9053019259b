"""The judgement that most measures share: is the answer right, before and after?"""

from __future__ import annotations

from collections.abc import Sequence

from emend.edits import Edit, Probe
from emend.edits.answers import same_answer
from emend.metrics import _protocols as protocols
from emend.metrics._metric import Answer, Outcomes, Question


def rightness(question: Question, before: Answer, after: Answer) -> Outcomes:
    """Whether the accepted answer is given, by each protocol that applies."""
    accepted = question.answers
    outcomes: Outcomes = {
        protocols.EXACT_MATCH: (
            protocols.exact_match(before, accepted),
            protocols.exact_match(after, accepted),
        ),
    }
    if before.scores:
        outcomes[protocols.TEACHER_FORCED] = (
            protocols.teacher_forced(before, accepted),
            protocols.teacher_forced(after, accepted),
        )
    return outcomes | preference(question, before, after)


def preference(question: Question, before: Answer, after: Answer) -> Outcomes:
    """Whether the accepted answer is more probable than the rival, where there is one.

    A rival that is an accepted answer is none: no answer is more probable than itself.
    """
    rival = question.rival
    if rival is None or not before.scores or is_accepted(rival, question.answers):
        return {}
    return {
        protocols.PROBABILITY: (
            protocols.probability(before, question.answers, rival),
            protocols.probability(after, question.answers, rival),
        )
    }


def question_of(edit: Edit, probe: Probe) -> Question:
    """A probe of what should change, as a question.

    It has the original object as rival only where the edit's target is what it asks for.
    """
    rival = edit.original if is_accepted(edit.target, probe.answers) else None
    return Question(probe.prompt, probe.answers, group=probe.group, rival=rival)


def is_accepted(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer is equal to one of the accepted ones."""
    return any(same_answer(answer, one) for one in accepted)
