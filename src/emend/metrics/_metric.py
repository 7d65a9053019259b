"""What a measure is: which questions it asks about an edit, and how it judges the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from emend.edits import Edit

if TYPE_CHECKING:
    from emend.models import Score

Record: TypeAlias = dict[str, Any]
Outcomes: TypeAlias = dict[str, "tuple[float, float]"]
"""Value before and after by protocol; a protocol that does not apply is left out."""


@dataclass(frozen=True)
class Question:
    """One thing to ask the model about an edit.

    Attributes:
        prompt: The full text to be continued.
        answers: The accepted answers; empty where only the text matters.
        group: The probe's group; "" where the measure has none.
        rival: The answer that the first accepted one is compared with by probability.
        new_tokens: How many tokens to generate; None for as many as the answers need.
    """

    prompt: str
    answers: tuple[str, ...] = ()
    group: str = ""
    rival: str | None = None
    new_tokens: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the model says to a question, in one state (before or after).

    Attributes:
        text: The greedy continuation of the prompt.
        scores: The score of each accepted answer and of the rival, by its text; empty where the
            model gives none.
    """

    text: str
    scores: Mapping[str, Score] = field(default_factory=dict)


Ask: TypeAlias = Callable[[Edit], Sequence[Question]]
Judge: TypeAlias = Callable[[Question, Answer, Answer], Outcomes]
Summarize: TypeAlias = Callable[[Sequence[Record], Mapping[str, Any]], "dict[str, Any]"]


@dataclass(frozen=True)
class Metric:
    """A measure, found by the name of its file.

    Attributes:
        name: The name of its module.
        title: One line that says what it measures.
        ask: The questions about one edit; may be none.
        judge: The outcome by protocol of one question, from the answers before and after.
        headline: The protocol that a summary's "before" and "after" are; an answer is as it should
            be where its value after the edit is 1.
        unit: Of these values: "share" from 0 to 1, shown in percent, or any other by its name.
        summarize: Records of this measure and the patch's timing to the entry in the summary;
            None for the mean over probes, groups and edits, in this order.
        grouped: Whether the summary also shows each group by itself.
        by_default: Whether it is taken where no measures are named.
    """

    name: str
    title: str
    ask: Ask
    judge: Judge
    headline: str = "exact_match"
    unit: str = "share"
    summarize: Summarize | None = None
    grouped: bool = False
    by_default: bool = True
