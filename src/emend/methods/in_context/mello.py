"""MeLLo: questions are answered step by step, each step checked against the edited facts.

Zhong et al. 2023, "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
Questions", arXiv 2305.14795, section 5.

    repeat  q_i <- the model's next subquestion, a_i <- its own answer
            f_i <- the edited fact nearest to q_i
            the model states whether f_i contradicts a_i, and goes on with the better answer
    until   "Final answer: ..."

    paper                     here
    the loop, its layout      `_steps.Stepwise`
    edited fact memory        `_facts.Facts`, over `emend.retrieval`
    four worked examples      `examples`; ours are our own

All questions of a call advance one round together. `--log_samples` writes the trace of
every question; steps that cannot be read count as failures, and the model then reads the
question alone.

Deviations: facts are compared by their words (BM25) unless another `encoder` is named (published:
Contriever), those whose subject the subquestion names first; a statement to be completed ("... was
born in"), which the paper does not have, is read after the fact nearest to it, as in in-context
editing. With a `threshold` a fact that is not near is left out; the model is then shown its own
answer in the fact's place (as the scope detector of PokeMQA, arXiv 2312.15194, does).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from emend import models
from emend._settings import Count, NotNegative
from emend.editing.session import Session
from emend.edits import Edit
from emend.errors import MissingFile
from emend.methods._method import method
from emend.methods.in_context._facts import (
    LAYOUT,
    Facts,
    FactsAttachment,
    FactsPatch,
    check_readable,
    count_tokens,
    room_of,
    sorted_edits,
)
from emend.methods.in_context._steps import ANSWER, Stepwise, Trace
from emend.models import Attachment
from emend.retrieval import check_encoder

GENERAL, NONE = "general", "none"
_ASKED = re.compile(r"\s*Question:\s*(?P<question>.+?)\s*(Answer:)?\s*", re.DOTALL)


@dataclass(frozen=True)
class MelloConfig:
    """Settings of MeLLo."""

    hops: Count = 4
    """Steps of one question, at most."""
    examples: str = GENERAL
    """Worked examples before every question: general (four that ship), none, or a text file."""
    encoder: str = "bm25"
    """How facts are compared: bm25, states, or a sentence-transformers model."""
    by_name: bool = True
    """Whether facts whose subject is named come before all others."""
    threshold: NotNegative = 0.0
    """A fact less near than this is not shown; 0 shows one at every step, as published."""
    new_tokens: Count = 256
    """Tokens that the model writes in one round, at most."""
    layout: str = LAYOUT
    """How a fact and a statement that is no question are written; with {fact}, and {prompt} at its
    end."""

    def __post_init__(self) -> None:
        check_encoder(self.encoder)


class MelloPatch(FactsPatch):
    """Facts that questions are answered from; ``details`` holds the text of ``examples`` too."""

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        super().check()
        str(self.details["examples"])
        int(self.config["hops"])
        int(self.config["new_tokens"])

    def attachment(self, model: nn.Module) -> Attachment:
        """See `MemoryPatch.attachment`."""
        return MelloAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MelloPatch:
        """See `MemoryPatch.selected`."""
        return replace(self, edits=edits)


class MelloAttachment(FactsAttachment):
    """Answers questions in steps before the model is asked for the answer itself."""

    def __init__(self, patch: MelloPatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        self._state: tuple[tuple[Attachment, ...], dict[str, Trace]] = (), {}

    @property
    def traces(self) -> dict[str, Trace]:
        """How each prompt was answered; begun anew when something else is attached."""
        return self._state[1]

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """See `Attachment.prepare`.

        A question ("Question: ... Answer:", or a text that ends with "?") is answered in steps,
        and the model goes on from "Final answer:". A statement is read after the fact nearest to
        it, if one is near. Where the steps of a question come to no answer, the model reads the
        question alone.
        """
        if not self.active or not self.patch.edits:
            return list(prompts)
        traces = self._current_traces()
        asked = {prompt: question for prompt in prompts if (question := question_of(prompt))}
        new = {prompt: question for prompt, question in asked.items() if prompt not in traces}
        traces.update(self._answered(new, tokenizer))
        stated = [prompt for prompt in prompts if prompt not in asked]
        facts = self._nearest(stated, tokenizer)
        read = {
            prompt: self._after(fact, prompt, tokenizer)
            for prompt, fact in zip(stated, facts, strict=True)
        }
        return [read[prompt] if prompt in read else traces[prompt].text for prompt in prompts]

    def samples(self) -> list[dict[str, Any]]:
        """See `Attachment.samples`: each prompt with its trace."""
        return [{"prompt": prompt, **trace.to_dict()} for prompt, trace in self.traces.items()]

    def _nearest(self, queries: Sequence[str], tokenizer: Any) -> list[str | None]:
        facts = self.facts(tokenizer)
        places = facts.nearest(queries, self.threshold)
        return [None if place is None else facts.texts[place] for place in places]

    def _answered(self, asked: Mapping[str, str], tokenizer: Any) -> dict[str, Trace]:
        config = self.patch.config
        loop = Stepwise(
            lambda queries: self._nearest(queries, tokenizer),
            examples=str(self.patch.details["examples"]),
            hops=int(config["hops"]),
            new_tokens=int(config["new_tokens"]),
        )
        with self.suspended():
            traces = loop.questions(self.model, tokenizer, list(asked.values()))
        return dict(zip(asked, traces, strict=True))

    def _after(self, fact: str | None, prompt: str, tokenizer: Any) -> str:
        """Return a statement after a fact; alone where the model has no room for both."""
        if fact is None:
            return prompt
        text = self.layout.block(fact, prompt)
        room = room_of(self.model, ANSWER)
        return prompt if room is not None and count_tokens(tokenizer, text) > room else text

    def _current_traces(self) -> dict[str, Trace]:
        """Return the traces, begun anew where something else acts: answers depend on it.

        Other threads, where something else may act, go on with their own.
        """
        acting = models.attachments(self.model)
        before, traces = self._state
        if acting != before:
            traces = {}
            self._state = acting, traces
        return traces


@method(
    title="MeLLo: questions answered step by step, each step checked against the edited facts",
    paper="Zhong et al. 2023, arXiv 2305.14795",
    when="what follows from edits over several facts; a model that can reason in steps, or an API",
    avoid="a small base model that cannot take a question apart; answers that must be quick",
    continues="append",
    order_invariant=True,
    prompt_only=True,
)
def mello(session: Session, config: MelloConfig) -> MelloPatch:
    """Remember facts to answer from."""
    model, tokenizer = session.model, session.tokenizer
    check_readable(model, tokenizer, session.edits)
    everything = sorted_edits(session.memory, session.edits)
    facts = Facts(everything, config.encoder, config.by_name, model, tokenizer)
    details = {"examples": examples_of(config.examples), **facts.description()}
    return MelloPatch(edits=everything, details=details, **session.record())


def question_of(prompt: str) -> str | None:
    """Return the question that a prompt asks, or None where it is a statement to be completed."""
    found = _ASKED.fullmatch(prompt)
    if found is not None:
        return found["question"]
    return prompt.strip() if prompt.rstrip().endswith("?") else None


def examples_of(name: str) -> str:
    """Return worked examples: "general" (four that ship), "none", or the text of a file.

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
