"""Locality: is what the edit does not imply as it was?

An answer counts as kept when it is the same as before, right or wrong (Zhang et al. 2024, arXiv
2401.01286); how many are right is given next to it as ``correct``, and in records also the share of
the answer's tokens that are (``correct_tokens``, zsRE's specificity). By protocol:

exact_match: the greedy continuations before and after begin with the same words.
teacher_forced: share of the answer's tokens at which the first choice is the same.
probability: CounterFact's NS, the true answer is more probable than the edit's new one; for
    groups in which the new one could slip in (the others would be right by themselves).
magnitude: by how much, of the same groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emend.edits import Edit, Probe
from emend.metrics import _judging as protocols
from emend.metrics._judging import is_accepted, preference
from emend.metrics._metric import Answer, Metric, Outcomes, Question, Record
from emend.metrics._summary import mean_over_edits, summarize

_NEW_COULD_SLIP_IN = ("neighborhood", "forgetfulness", "distracting")
CORRECT = "correct"
CORRECT_TOKENS = "correct_tokens"
_APART = (CORRECT, CORRECT_TOKENS)


def _ask(edit: Edit) -> list[Question]:
    return [_question(edit, probe) for probe in edit.probes_of("locality")]


def _question(edit: Edit, probe: Probe) -> Question:
    comparable = probe.group in _NEW_COULD_SLIP_IN and not is_accepted(edit.target, probe.answers)
    rival = edit.target if comparable else None
    return Question(probe.prompt, probe.answers, group=probe.group, rival=rival)


def _judge(question: Question, before: Answer, after: Answer) -> Outcomes:
    accepted = question.answers
    outcomes: Outcomes = {
        protocols.EXACT_MATCH: (1.0, protocols.same_answer(before, after, accepted)),
    }
    if before.scores:
        same = protocols.same_choices(before, after, accepted[0])
        outcomes[protocols.TEACHER_FORCED] = (1.0, same)
        outcomes[CORRECT_TOKENS] = (
            protocols.teacher_forced(before, accepted),
            protocols.teacher_forced(after, accepted),
        )
    outcomes[CORRECT] = (
        protocols.exact_match(before, accepted),
        protocols.exact_match(after, accepted),
    )
    return outcomes | preference(question, before, after)


def _summarize(records: Sequence[Record], timing: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise as usual; whether answers are right is no protocol of locality, so apart."""
    entry = summarize(records, protocols.EXACT_MATCH, grouped=True, apart=_APART)
    entry[CORRECT] = mean_over_edits(records, CORRECT)
    return entry


locality = Metric(
    name="locality",
    title="what the edit does not imply stays",
    ask=_ask,
    judge=_judge,
    summarize=_summarize,
    grouped=True,
)
