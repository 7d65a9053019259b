"""The protocols by which an answer is judged; a summary shows them next to each other.

teacher_forced: share of the answer's tokens that are the model's first choice given the ones
    before them. The custom of the field; generous, because it gives the answer's beginning away.
exact_match: whether the greedy continuation states the answer (`emend.edits.answers`). What a user
    sees.
probability: whether one answer is more probable than another, by mean log-probability per token;
    undefined where the other is an accepted answer too.
magnitude: by how much: the difference of the two probabilities, each the exponential of its mean
    log-probability per token (CounterFact's EM, PM, NM).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from emend.edits import Edit, Probe, answers
from emend.metrics._metric import Answer, Outcomes, Question

TEACHER_FORCED = "teacher_forced"
EXACT_MATCH = "exact_match"
PROBABILITY = "probability"
MAGNITUDE = "magnitude"


def exact_match(answer: Answer, accepted: Sequence[str]) -> float:
    """Return 1.0 if the greedy continuation states one of the accepted answers, else 0.0."""
    return float(answers.states_answer(answer.text, accepted))


def teacher_forced(answer: Answer, accepted: Sequence[str]) -> float:
    """Return the share of tokens of the best accepted answer that are the model's first choice."""
    return max(answer.scores[one].token_accuracy for one in accepted)


def probability(answer: Answer, accepted: Sequence[str], rival: str) -> float:
    """Return 1.0 if an accepted answer is more probable per token than ``rival``, else 0.0."""
    best = max(answer.scores[one].mean for one in accepted)
    return float(best > answer.scores[rival].mean)


def magnitude(answer: Answer, accepted: Sequence[str], rival: str) -> float:
    """Return how much more probable the best accepted answer is than ``rival``, from -1 to 1."""
    best = max(answer.scores[one].mean for one in accepted)
    return math.exp(best) - math.exp(answer.scores[rival].mean)


def same_answer(before: Answer, after: Answer, accepted: Sequence[str]) -> float:
    """Return 1.0 if both continuations give the same answer, else 0.0; see `answers.same_reply`."""
    return float(answers.same_reply(before.text, after.text, accepted))


def same_choices(before: Answer, after: Answer, answer: str) -> float:
    """Return the share of the answer's positions at which the model's first choice is as it was."""
    old, new = before.scores[answer].greedy, after.scores[answer].greedy
    return sum(a == b for a, b in zip(old, new, strict=True)) / len(old)


def rightness(question: Question, before: Answer, after: Answer) -> Outcomes:
    """Judge whether the accepted answer is given, by each protocol that applies."""
    accepted = question.answers
    outcomes: Outcomes = {
        EXACT_MATCH: (
            exact_match(before, accepted),
            exact_match(after, accepted),
        ),
    }
    if before.scores:
        outcomes[TEACHER_FORCED] = (
            teacher_forced(before, accepted),
            teacher_forced(after, accepted),
        )
    return outcomes | preference(question, before, after)


def preference(question: Question, before: Answer, after: Answer) -> Outcomes:
    """Judge whether the accepted answer is more probable than the rival, where there is one.

    A rival that is an accepted answer is none: no answer is more probable than itself.
    """
    rival = question.rival
    if rival is None or not before.scores or is_accepted(rival, question.answers):
        return {}
    asked = question.answers, rival
    return {
        PROBABILITY: (probability(before, *asked), probability(after, *asked)),
        MAGNITUDE: (magnitude(before, *asked), magnitude(after, *asked)),
    }


def question_of(edit: Edit, probe: Probe) -> Question:
    """Make a question of a probe of what should change.

    It has the original object as rival only where the edit's target is what it asks for.
    """
    rival = edit.original if is_accepted(edit.target, probe.answers) else None
    return Question(probe.prompt, probe.answers, group=probe.group, rival=rival)


def is_accepted(answer: str, accepted: Sequence[str]) -> bool:
    """Return whether an answer is equal to one of the accepted ones."""
    return any(answers.same_answer(answer, one) for one in accepted)
