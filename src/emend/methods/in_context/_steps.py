"""Questions answered in steps: the layout, the loop, and the trace of each question.

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

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from emend import models
from emend.methods.in_context._facts import count_tokens, room_of

QUESTION, SUBQUESTION, GENERATED = "Question:", "Subquestion:", "Generated answer:"
RETRIEVED, FINAL = "Retrieved fact:", "Final answer:"
CONTRADICTS = "Retrieved fact contradicts the generated answer, so the intermediate answer is:"
AGREES = "Retrieved fact does not contradict the generated answer, so the intermediate answer is:"
STOPS = (RETRIEVED, f"\n{QUESTION}", "\n\n")
"""Where the model stops: it wants a fact, or begins another question."""

FULL = "the context is full"
ANSWER = 24
"""Tokens that must be free for an answer."""

Retrieve = Callable[[Sequence[str]], "list[str | None]"]
"""The fact nearest to each query, or None where none is near."""


@dataclass
class Step:
    """One step of a trace.

    Attributes:
        subquestion: The question that the model asks itself.
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
        steps: The steps in their order.
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
        """Return it JSON-able, with a readable form of the steps."""
        return asdict(self)


@dataclass(frozen=True)
class Stepwise:
    """Answers questions by a language model and a memory of facts.

    Attributes:
        retrieve: Gives the fact for a query.
        examples: Worked examples before every question, ended by an empty line; may be empty.
        hops: Steps of a question, at most.
        new_tokens: Tokens that the model writes in one round, at most.
    """

    retrieve: Retrieve
    examples: str = ""
    hops: int = 4
    new_tokens: int = 256

    def questions(self, model: Any, tokenizer: Any, questions: Sequence[str]) -> list[Trace]:
        """Answer questions; all advance one round together. What is attached to the model acts.

        Returns:
            A trace for each. Where it has an answer, `text` ends with the words that the answer
            follows; where it failed, it is the question alone.
        """
        traces = [Trace(question, self._opening(question)) for question in questions]
        for number in range(self.hops + 1):
            going = self._with_room(model, tokenizer, [trace for trace in traces if trace.open])
            if not going:
                break
            texts = [trace.text for trace in going]
            found = models.generate(
                model, tokenizer, texts, max_new_tokens=self.new_tokens, stop=STOPS
            )
            for trace, text in zip(going, found, strict=True):
                self._advance(trace, text, is_first=number == 0)
            self._show_facts([trace for trace in going if trace.open])
        for trace in traces:
            if trace.failure is not None:
                trace.text = self._opening(trace.question)
        return traces

    def _opening(self, question: str) -> str:
        return f"{self.examples}{QUESTION} {question}\n"

    def _with_room(self, model: Any, tokenizer: Any, traces: Sequence[Trace]) -> list[Trace]:
        """Return those whose text leaves the model room to go on; the others fail."""
        room = room_of(model, ANSWER)
        for trace in traces:
            if room is not None and count_tokens(tokenizer, trace.text) > room:
                trace.failure = FULL
        return [trace for trace in traces if trace.open]

    def _advance(self, trace: Trace, written: str, *, is_first: bool) -> None:
        """Read what the model wrote after a question (first) or after a retrieved fact."""
        lines = [line.strip() for line in written.split("\n") if line.strip()]
        if not is_first:
            step = trace.steps[-1]
            verdict = _verdict(lines.pop(0)) if lines else None
            if verdict is None:
                trace.failure = "no verdict on the retrieved fact"
                return
            step.contradicts, step.answer, text = verdict
            trace.text += f"{text}\n"
        if lines and lines[0].startswith(FINAL):
            trace.answer = _bare(lines[0], FINAL)
            trace.text += FINAL
        elif not lines or not lines[0].startswith(SUBQUESTION):
            trace.failure = "neither a subquestion nor a final answer"
        elif len(lines) < 2 or not lines[1].startswith(GENERATED):
            trace.failure = "a subquestion without an answer to it"
        elif len(trace.steps) == self.hops:
            trace.failure = f"no final answer after {self.hops} steps"
        else:
            asked, answered = lines[0], lines[1]
            trace.text += f"{asked}\n{answered}\n"
            trace.steps.append(
                Step(
                    asked.removeprefix(SUBQUESTION).strip(),
                    answered.removeprefix(GENERATED).strip(),
                )
            )

    def _show_facts(self, traces: Sequence[Trace]) -> None:
        facts = self.retrieve([trace.steps[-1].subquestion for trace in traces]) if traces else []
        for trace, fact in zip(traces, facts, strict=True):
            trace.steps[-1].retrieved = fact
            # The layout always shows a fact; the model's own answer contradicts nothing.
            shown = trace.steps[-1].generated if fact is None else fact
            trace.text += f"{RETRIEVED} {shown}\n"


def _verdict(line: str) -> tuple[bool, str, str] | None:
    """Return whether the fact contradicts, the intermediate answer and the line, if it is one."""
    for contradicts, prefix in ((True, CONTRADICTS), (False, AGREES)):
        if line.startswith(prefix):
            return contradicts, _bare(line, prefix), line
    return None


def _bare(line: str, prefix: str) -> str:
    return line.removeprefix(prefix).strip().removesuffix(".")
