"""The layout of a question answered in steps, what is read from it, and the trace that is kept.

Zhong et al. 2023, "MQuAKE", arXiv 2305.14795 (MeLLo):

    Question: ...
    Subquestion: ...                        the model's, one fact of the chain
    Generated answer: ...                   the model's own
    Retrieved fact: ...                     the nearest edited fact
    Retrieved fact contradicts the generated answer, so the intermediate answer is: ...
    ...                                     or does not contradict; then the next subquestion
    Final answer: ...
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

CONTRADICTS = "Retrieved fact contradicts the generated answer, so the intermediate answer is:"
AGREES = "Retrieved fact does not contradict the generated answer, so the intermediate answer is:"


@dataclass(frozen=True)
class StepLayout:
    """The words of the layout; `examples` stand before every question.

    Attributes:
        examples: Worked examples, ended by an empty line; may be empty.
    """

    examples: str = ""
    question: str = "Question:"
    subquestion: str = "Subquestion:"
    generated: str = "Generated answer:"
    retrieved: str = "Retrieved fact:"
    contradicts: str = CONTRADICTS
    agrees: str = AGREES
    final: str = "Final answer:"

    @property
    def stops(self) -> tuple[str, ...]:
        """Where the model is to stop: a fact is wanted, or another question begins."""
        return (self.retrieved, f"\n{self.question}", "\n\n")

    def opening(self, question: str) -> str:
        """What the model reads first."""
        return f"{self.examples}{self.question} {question}\n"


@dataclass
class Step:
    """One step of a trace.

    Attributes:
        subquestion: What the model asked itself.
        generated: Its own answer.
        retrieved: The fact that it was shown; None where none was near, and it was shown its own
            answer again.
        contradicts: Its verdict, once it is there.
        answer: Its intermediate answer.
    """

    subquestion: str
    generated: str
    retrieved: str | None = None
    contradicts: bool | None = None
    answer: str | None = None


@dataclass
class Trace:
    """How a question was answered.

    Attributes:
        question: As it was asked.
        text: What the model had read when it came to its answer.
        steps: What it asked itself, said, was shown and concluded.
        answer: Its final answer, or None.
        failure: Why there is none.
    """

    question: str
    text: str
    steps: list[Step] = field(default_factory=lambda: [])
    answer: str | None = None
    failure: str | None = None

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.answer is None and self.failure is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with a readable form of the steps."""
        return asdict(self)


@dataclass(frozen=True)
class Written:
    """What a model wrote in one round.

    Attributes:
        verdict: Whether the fact contradicts and the intermediate answer; None in a first round.
        subquestion: The next one with the model's own answer, or None.
        answer: The final answer, or None.
        failure: What could not be read, or None.
        text: The lines that were read, as they stand in the layout.
    """

    verdict: tuple[bool, str] | None = None
    subquestion: tuple[str, str] | None = None
    answer: str | None = None
    failure: str | None = None
    text: str = ""


def read(layout: StepLayout, written: str, *, first: bool) -> Written:
    """Read what a model wrote after a question (first) or after a retrieved fact."""
    lines = [line.strip() for line in written.split("\n") if line.strip()]
    verdict = None
    text = ""
    if not first:
        verdict = _verdict(layout, lines[0]) if lines else None
        if verdict is None:
            return Written(failure="no verdict on the retrieved fact")
        text = f"{lines.pop(0)}\n"
    if not lines:
        return Written(verdict, failure="neither a subquestion nor a final answer", text=text)
    if lines[0].startswith(layout.final):
        return Written(verdict, answer=_bare(lines[0], layout.final), text=text)
    if not lines[0].startswith(layout.subquestion):
        return Written(verdict, failure="neither a subquestion nor a final answer", text=text)
    if len(lines) < 2 or not lines[1].startswith(layout.generated):
        return Written(verdict, failure="a subquestion without an answer to it", text=text)
    pair = (
        lines[0].removeprefix(layout.subquestion).strip(),
        lines[1].removeprefix(layout.generated).strip(),
    )
    return Written(verdict, subquestion=pair, text=f"{text}{lines[0]}\n{lines[1]}\n")


def _verdict(layout: StepLayout, line: str) -> tuple[bool, str] | None:
    """Whether the fact contradicts, and the intermediate answer; None if the line says neither."""
    for contradicts, prefix in ((True, layout.contradicts), (False, layout.agrees)):
        if line.startswith(prefix):
            return contradicts, _bare(line, prefix)
    return None


def _bare(line: str, prefix: str) -> str:
    return line.removeprefix(prefix).strip().removesuffix(".")
