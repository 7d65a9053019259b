"""The loop that answers questions in steps: all questions advance one round together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emend import models
from emend.incontext.facts import count_tokens, room_of
from emend.incontext.steps import Step, StepLayout, Trace, Written, read, read_verdict

Retrieve = Callable[[Sequence[str]], list[str]]
"""The fact nearest to each query."""

FULL = "the context is full"
ANSWER, VERDICT = 24, 64
"""Tokens that must be free for an answer, and for a verdict and an answer."""


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

    def statements(self, model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[Trace]:
        """Complete statements: one step without a question, of own answer, fact and verdict.

        Returns:
            A trace for each, whose `text` ends with the verdict that the answer stands after.
            Without a readable verdict it is that the fact does not contradict; without room for
            the step `text` is the prompt itself.
        """
        layout = self.layout
        traces = [
            Trace(prompt, f"{layout.examples}{layout.generated} {prompt}") for prompt in prompts
        ]
        going = self._with_room(model, tokenizer, traces)
        own = self._write(model, tokenizer, [trace.text for trace in going], stop="\n")
        for trace, text in zip(going, own, strict=True):
            ended = text.strip().partition(".")[0]
            trace.steps.append(Step("", f"{trace.question} {ended}.", ""))
            trace.text = f"{layout.examples}{layout.generated} {trace.question} {ended}.\n"
        self._show_facts(going)
        going = self._with_room(model, tokenizer, going, VERDICT)
        said = self._write(model, tokenizer, [trace.text for trace in going], stop="\n")
        for trace, text in zip(going, said, strict=True):
            verdict = read_verdict(layout, text.strip())
            if verdict is None:
                trace.failure = "no verdict on the retrieved fact"
            else:
                trace.steps[-1].contradicts, trace.answer = verdict
                trace.steps[-1].answer = verdict[1]
            trace.text += layout.contradicts if verdict and verdict[0] else layout.agrees
        for trace in traces:
            if trace.failure == FULL:
                trace.text = trace.question
        return traces

    def _with_room(
        self, model: Any, tokenizer: Any, traces: Sequence[Trace], reserve: int = ANSWER
    ) -> list[Trace]:
        """Those whose text leaves the model room to go on; the others fail."""
        room = room_of(model, reserve)
        for trace in traces:
            if room is not None and count_tokens(tokenizer, trace.text) > room:
                trace.failure = FULL
        return [trace for trace in traces if trace.open]

    def _write(
        self, model: Any, tokenizer: Any, texts: Sequence[str], stop: str | None = None
    ) -> list[str]:
        return models.generate(
            model,
            tokenizer,
            list(texts),
            max_new_tokens=self.new_tokens,
            batch_size=self.batch_size,
            stop=self.layout.stops if stop is None else stop,
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
            trace.steps.append(Step(*written.subquestion, ""))

    def _show_facts(self, traces: Sequence[Trace]) -> None:
        queries = [self._query(trace.steps[-1]) for trace in traces]
        facts = self.retrieve(queries) if queries else []
        for trace, fact in zip(traces, facts, strict=True):
            trace.steps[-1].retrieved = fact
            trace.text += f"{self.layout.retrieved} {fact}\n"

    def _query(self, step: Step) -> str:
        if not step.subquestion:
            return step.generated
        return f"{step.subquestion} {step.generated}" if self.with_answer else step.subquestion
