"""Facts that questions are answered from, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from emend import models
from emend.edits import Edit
from emend.errors import MissingFile
from emend.methods.in_context._facts import FactLayout, count_tokens, room_of
from emend.methods.in_context._recall import Facts
from emend.methods.in_context._steps import StepLayout, Trace
from emend.methods.in_context._stepwise import ANSWER, Stepwise
from emend.models import Attachment, TextAttachment
from emend.patches import MemoryPatch

GENERAL, NONE = "general", "none"
_ASKED = re.compile(r"\s*Question:\s*(?P<question>.+?)\s*(Answer:)?\s*", re.DOTALL)


class MelloPatch(MemoryPatch):
    """Facts that questions are answered from.

    ``details`` holds ``examples`` (what stands before every question) and, where facts are sought
    by vectors, ``encoder``.
    """

    served_by: ClassVar[str] = (
        "emend puts its texts in front of prompts, also of a model that an engine serves "
        "(openai:NAME)"
    )

    def check(self) -> None:
        """See :meth:`MemoryPatch.check`."""
        self.stepwise(lambda queries: [None] * len(queries))
        float(self.config["threshold"])
        layout_of(self.config)

    def stepwise(self, retrieve: Any) -> Stepwise:
        """The loop by the patch's settings."""
        config = self.config
        return Stepwise(
            layout=StepLayout(examples=str(self.details["examples"])),
            retrieve=retrieve,
            hops=int(config["hops"]),
            new_tokens=int(config["new_tokens"]),
            with_answer=bool(config["with_answer"]),
        )

    def attachment(self, model: nn.Module) -> Attachment:
        """See :meth:`MemoryPatch.attachment`."""
        return MelloAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MelloPatch:
        """See :meth:`MemoryPatch.selected`."""
        return replace(self, edits=edits)


class MelloAttachment(TextAttachment):
    """Answers questions in steps before the model is asked for the answer itself."""

    def __init__(self, patch: MelloPatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        self._layout = layout_of(patch.config)
        self._facts: Facts | None = None
        self._state: tuple[tuple[Attachment, ...], dict[str, Trace]] = (), {}

    @property
    def traces(self) -> dict[str, Trace]:
        """How each prompt was answered; begun anew when something else is attached."""
        return self._state[1]

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """See `Attachment.prepare`.

        A question ("Question: ... Answer:", or a text that ends with "?") is answered in steps,
        and the model goes on from "Final answer:". Before a statement stands the fact nearest
        to it, if one is near. Where the steps of a question come to no answer, the model reads
        the question alone.
        """
        if not self.active or not self.patch.edits:
            return list(prompts)
        traces = self._current_traces()
        facts = self._remembered(tokenizer)
        asked = {prompt: question for prompt in prompts if (question := question_of(prompt))}
        said = [prompt for prompt in prompts if prompt not in asked]
        new = {prompt: question for prompt, question in asked.items() if prompt not in traces}
        traces.update(self._answered(new, facts, tokenizer))
        threshold = float(self.patch.config["threshold"])
        told = dict(zip(said, facts.fact_for(said, threshold), strict=True))
        texts = {
            prompt: prompt if fact is None else self._stated(fact, prompt, tokenizer)
            for prompt, fact in told.items()
        }
        return [texts.get(prompt) or traces[prompt].text for prompt in prompts]

    def samples(self) -> list[dict[str, Any]]:
        """See `Attachment.samples`: each prompt with its trace."""
        return [{"prompt": prompt, **trace.to_dict()} for prompt, trace in self.traces.items()]

    def _answered(self, asked: Mapping[str, str], facts: Facts, tokenizer: Any) -> dict[str, Trace]:
        threshold = float(self.patch.config["threshold"])
        loop: Stepwise = self.patch.stepwise(lambda queries: facts.fact_for(queries, threshold))
        with self.suspended():
            traces = loop.questions(self.model, tokenizer, list(asked.values()))
        return dict(zip(asked, traces, strict=True))

    def _stated(self, fact: str, prompt: str, tokenizer: Any) -> str:
        """A statement after a fact; alone where the model has no room for both."""
        text = self._layout.block([fact], prompt)
        room = room_of(self.model, ANSWER)
        return prompt if room is not None and count_tokens(tokenizer, text) > room else text

    def _remembered(self, tokenizer: Any) -> Facts:
        if self._facts is None:
            settings = self.patch.config["encoder"], self.patch.config["by_name"]
            with self.suspended():
                self._facts = Facts(self.patch.edits, *settings, self.model, tokenizer)
                self._facts.check(self.patch.details)
        return self._facts

    def _current_traces(self) -> dict[str, Trace]:
        """The traces, begun anew where something else acts: what the model says depends on it.

        Other threads, where something else may act, go on with their own.
        """
        there = models.attachments(self.model)
        beside, traces = self._state
        if there != beside:
            traces = {}
            self._state = there, traces
        return traces


def layout_of(config: Mapping[str, Any]) -> FactLayout:
    """How a fact stands before a statement, by settings."""
    return FactLayout(config["fact_line"], config["prompt_line"], "")


def question_of(prompt: str) -> str | None:
    """The question that a prompt asks, or None where it is a statement to be completed."""
    found = _ASKED.fullmatch(prompt)
    if found is not None:
        return found["question"]
    return prompt.strip() if prompt.rstrip().endswith("?") else None


def examples_of(name: str) -> str:
    """Worked examples: "general" (four that ship), "none", or the text of a file.

    Raises:
        MissingFile: There is no such file.
    """
    if name == NONE:
        return ""
    if name == GENERAL:
        return _general()
    if not Path(name).is_file():
        raise MissingFile(
            f"there is no file {name} of worked examples: give general, none or a text file"
        )
    return Path(name).read_text(encoding="utf-8").rstrip("\n") + "\n\n"


@cache
def _general() -> str:
    path = Path(__file__).parent / "examples.txt"
    return path.read_text(encoding="utf-8").rstrip("\n") + "\n\n"
