"""The protocols by which an answer is judged; a summary shows them side by side.

teacher_forced: share of the answer's tokens that are the model's first choice given the ones
    before them. The custom of the field; generous, because it gives the answer's beginning away.
exact_match: whether the greedy continuation is the answer. What a user sees.
probability: whether one answer is more probable than another, by mean log-probability per token.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from emend.metrics._metric import Answer

TEACHER_FORCED = "teacher_forced"
EXACT_MATCH = "exact_match"
PROBABILITY = "probability"
PROTOCOLS = (EXACT_MATCH, TEACHER_FORCED, PROBABILITY)

_WORD_GOES_ON = re.compile(r"\w|[-'’]\w")


def normalized(text: str) -> str:
    """``text`` in one Unicode form, without case, with single spaces and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def begins_with(text: str, answer: str) -> bool:
    """Whether ``text`` begins with ``answer`` and the answer's last word ends there.

    So "Cork is a city" begins with "Cork"; "Corkville" and "Cork-on-Sea" do not.
    """
    text, answer = normalized(text), normalized(answer)
    if not answer or not text.startswith(answer):
        return False
    rest = text[len(answer) :]
    if rest.startswith(("'s", "’s")):
        return True
    return not (answer[-1].isalnum() and _WORD_GOES_ON.match(rest))


def exact_match(answer: Answer, accepted: Sequence[str]) -> float:
    """1.0 if the greedy continuation is one of the accepted answers, else 0.0."""
    return float(any(begins_with(answer.text, one) for one in accepted))


def teacher_forced(answer: Answer, accepted: Sequence[str]) -> float:
    """Share of the tokens of the best accepted answer that are the model's first choice."""
    return max(answer.scores[one].token_accuracy for one in accepted)


def probability(answer: Answer, accepted: Sequence[str], rival: str) -> float:
    """1.0 if an accepted answer is more probable per token than ``rival``, else 0.0."""
    best = max(answer.scores[one].mean for one in accepted)
    return float(best > answer.scores[rival].mean)


def same_answer(before: Answer, after: Answer, accepted: Sequence[str]) -> float:
    """1.0 if both continuations begin with the same words, as many as an accepted answer has.

    If both are an accepted answer they are the same answer, whichever it is.
    """
    if exact_match(before, accepted) and exact_match(after, accepted):
        return 1.0
    words = max(len(one.split()) for one in accepted)
    return float(_first_words(before.text, words) == _first_words(after.text, words))


def same_choices(before: Answer, after: Answer, answer: str) -> float:
    """Share of the answer's positions at which the model's first choice is as it was."""
    old, new = before.scores[answer].greedy, after.scores[answer].greedy
    return sum(a == b for a, b in zip(old, new, strict=True)) / len(old)


def _first_words(text: str, count: int) -> list[str]:
    # Punctuation that touches a word is no part of the answer: "Cork." is "Cork".
    words = (word.strip(".,;:!?\"'()[]“”’") for word in normalized(text).split())
    return [word for word in words if word][:count]
