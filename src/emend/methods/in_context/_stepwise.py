"""The loop that answers questions in steps: all questions advance one round together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emend import models
from emend.methods.in_context._facts import count_tokens, room_of
from emend.methods.in_context._steps import Step, StepLayout, Trace, Written, read

Retrieve = Callable[[Sequence[str]], "list[str | None]"]
"""The fact nearest to each query, or None where none is near."""

FULL = "the context is full"
ANSWER = 24
"""Tokens that must be free for an answer."""


@dataclass(frozen=True)
class Stepwise:
    """Answers questions by a language model and a memory of facts.

    Attributes:
        layout: The words that stand around.
        retrieve: Gives the fact for a query.
        hops: Steps of a question, at most.
        new_tokens: Tokens that the model writes in one round, at most.
        with_answer: Whether facts are sought by the model's own answer too, and not by its
            subquestion alone.
        batch_size: Texts in one forward pass.
    """

    layout: StepLayout
    retrieve: Retrieve
    hops: int = 4
    new_tokens: int = 256
    with_answer: bool = False
    batch_size: int = 32

    def questions(self, model: Any, tokenizer: Any, questions: Sequence[str]) -> list[Trace]:
        """Answer questions. What is attached to the model acts.

        Returns:
            A trace for each. Where it has an answer, `text` ends with the words that the answer
            stands after; where it failed, it is the question alone.
        """
        traces = [Trace(question, self.layout.opening(question)) for question in questions]
        for number in range(self.hops + 1):
            going = self._with_room(model, tokenizer, [trace for trace in traces if trace.open])
            if not going:
                break
            found = self._write(model, tokenizer, [trace.text for trace in going])
            for trace, text in zip(going, found, strict=True):
                self._advance(trace, read(self.layout, text, first=number == 0))
            self._show_facts([trace for trace in going if trace.open])
        for trace in traces:
            if trace.failure is not None:
                trace.text = self.layout.opening(trace.question)
        return traces

    def _with_room(self, model: Any, tokenizer: Any, traces: Sequence[Trace]) -> list[Trace]:
        """Those whose text leaves the model room to go on; the others fail."""
        room = room_of(model, ANSWER)
        for trace in traces:
            if room is not None and count_tokens(tokenizer, trace.text) > room:
                trace.failure = FULL
        return [trace for trace in traces if trace.open]

    def _write(self, model: Any, tokenizer: Any, texts: Sequence[str]) -> list[str]:
        return models.generate(
            model,
            tokenizer,
            list(texts),
            max_new_tokens=self.new_tokens,
            batch_size=self.batch_size,
            stop=self.layout.stops,
        )

    def _advance(self, trace: Trace, written: Written) -> None:
        if written.verdict is not None:
            trace.steps[-1].contradicts, trace.steps[-1].answer = written.verdict
        trace.text += written.text
        trace.failure = written.failure
        if written.answer is not None:
            trace.answer = written.answer
            trace.text += self.layout.final
        elif written.subquestion is not None and len(trace.steps) == self.hops:
            trace.failure = f"no final answer after {self.hops} steps"
        elif written.subquestion is not None:
            trace.steps.append(Step(*written.subquestion))

    def _show_facts(self, traces: Sequence[Trace]) -> None:
        queries = [self._query(trace.steps[-1]) for trace in traces]
        facts = self.retrieve(queries) if queries else []
        for trace, fact in zip(traces, facts, strict=True):
            trace.steps[-1].retrieved = fact
            # The layout always shows a fact; the model's own answer contradicts nothing.
            shown = trace.steps[-1].generated if fact is None else fact
            trace.text += f"{self.layout.retrieved} {shown}\n"

    def _query(self, step: Step) -> str:
        return f"{step.subquestion} {step.generated}" if self.with_answer else step.subquestion
