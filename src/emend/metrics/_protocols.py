"""The protocols by which an answer is judged; a summary shows them side by side.

teacher_forced: share of the answer's tokens that are the model's first choice given the ones
    before them. The custom of the field; generous, because it gives the answer's beginning away.
exact_match: whether the greedy continuation states the answer (`emend.edits.answers`). What a user
    sees.
probability: whether one answer is more probable than another, by mean log-probability per token;
    undefined where the other is an accepted answer too.
"""

from __future__ import annotations

from collections.abc import Sequence

from emend.edits.answers import same_reply, states_answer
from emend.metrics._metric import Answer

TEACHER_FORCED = "teacher_forced"
EXACT_MATCH = "exact_match"
PROBABILITY = "probability"
PROTOCOLS = (EXACT_MATCH, TEACHER_FORCED, PROBABILITY)


def exact_match(answer: Answer, accepted: Sequence[str]) -> float:
    """1.0 if the greedy continuation states one of the accepted answers, else 0.0."""
    return float(states_answer(answer.text, accepted))


def teacher_forced(answer: Answer, accepted: Sequence[str]) -> float:
    """Share of the tokens of the best accepted answer that are the model's first choice."""
    return max(answer.scores[one].token_accuracy for one in accepted)


def probability(answer: Answer, accepted: Sequence[str], rival: str) -> float:
    """1.0 if an accepted answer is more probable per token than ``rival``, else 0.0."""
    best = max(answer.scores[one].mean for one in accepted)
    return float(best > answer.scores[rival].mean)


def same_answer(before: Answer, after: Answer, accepted: Sequence[str]) -> float:
    """1.0 if both continuations give the same answer, else 0.0; see `answers.same_reply`."""
    return float(same_reply(before.text, after.text, accepted))


def same_choices(before: Answer, after: Answer, answer: str) -> float:
    """Share of the answer's positions at which the model's first choice is as it was."""
    old, new = before.scores[answer].greedy, after.scores[answer].greedy
    return sum(a == b for a, b in zip(old, new, strict=True)) / len(old)
