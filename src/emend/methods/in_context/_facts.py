"""Facts in prompts: how they are written, which of them a prompt gets, and what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from emend import models, retrieval
from emend.edits import Edit
from emend.edits.joining import sentence
from emend.errors import InvalidInput, NumericalFailure
from emend.models import TextAttachment
from emend.models.forward import longest_text
from emend.models.positions import prompt_tokens
from emend.patches import MemoryPatch
from emend.retrieval.naming import check_description

LAYOUT = "New Fact: {fact}\nPrompt: {prompt}"
"""The published layout."""
FACT, PROMPT = "{fact}", "{prompt}"
CHARACTERS_PER_TOKEN = 3
"""A lower bound by which tokens are counted where the tokenizer is not at hand."""
ENCODER = "encoder"
"""Under this name the details of a patch hold the description of its encoder."""


def statement(edit: Edit) -> str:
    """Return the fact of an edit as a sentence."""
    return sentence(edit.text, edit.target)


@dataclass(frozen=True)
class Layout:
    """How a new fact and a prompt are written.

    Attributes:
        text: With ``{fact}``, and ``{prompt}`` at its end.

    Raises:
        InvalidInput: It does not have one of each, in this order, the prompt at its end.
    """

    text: str

    def __post_init__(self) -> None:
        head, _, tail = self.text.partition(FACT)
        if tail.count(PROMPT) != 1 or not tail.endswith(PROMPT) or FACT in tail or PROMPT in head:
            raise InvalidInput(
                f"layout is {self.text!r}, expected {FACT} and then {PROMPT} at its end, once "
                f"each: write it as {LAYOUT!r}"
            )

    def block(self, fact: str, prompt: str) -> str:
        """Return a new fact, then a prompt to be continued."""
        head, _, tail = self.text.partition(FACT)
        return f"{head}{fact}{tail.removesuffix(PROMPT)}{prompt}"

    def answered(self, fact: str, prompt: str, answer: str) -> str:
        """Return the same with the prompt's answer."""
        return sentence(self.block(fact, prompt), answer)


def fitted(
    blocks: Sequence[str], last: str, separator: str, room: int | None, tokenizer: Any
) -> tuple[str, int]:
    """Join blocks and the last one to a text that fits; where not, the first blocks are left out.

    Args:
        blocks: What may be left out, the most dispensable first.
        last: What must be there.
        separator: Between two blocks.
        room: Tokens that the text may have; None for any number.
        tokenizer: Counts them; None counts characters.

    Returns:
        The text, and how many blocks it has next to the last.
    """
    sizes = [count_tokens(tokenizer, block + separator) for block in blocks]
    left = None if room is None else room - count_tokens(tokenizer, last)
    count = len(blocks)
    while count and left is not None and sum(sizes[len(blocks) - count :]) > left:
        count -= 1
    return separator.join([*blocks[len(blocks) - count :], last]), count


def count_tokens(tokenizer: Any, text: str) -> int:
    """Return how many tokens a text has, or at most has where there is no tokenizer."""
    if tokenizer is None:
        return len(text) // CHARACTERS_PER_TOKEN + 1
    return len(prompt_tokens(tokenizer, [text])[0])


def room_of(model: Any, reserve: int) -> int | None:
    """Return how many tokens a prompt may have so that `reserve` more can follow; None for any."""
    longest = longest_text(model)
    return None if longest is None else longest - reserve


class Facts:
    """The facts of edits, searched by one encoder.

    Args:
        edits: The edits; may be none.
        encoder: Its name; see `emend.retrieval`.
        by_name: Whether facts whose subject a query names come before all others.
        model: The language model, for its own states.
        tokenizer: Its tokenizer.

    Raises:
        InvalidInput: The encoder cannot be used.
    """

    def __init__(
        self, edits: Sequence[Edit], encoder: str, by_name: bool, model: Any, tokenizer: Any
    ) -> None:
        self.edits = tuple(edits)
        self.texts = [statement(edit) for edit in edits]
        index = retrieval.build_index(self.texts, encoder, model=model, tokenizer=tokenizer)
        self.encoder = index.encoder if isinstance(index, retrieval.DenseIndex) else None
        names = [edit.subject for edit in edits]
        self.index = retrieval.NamedIndex(index, names) if by_name else index

    def description(self) -> dict[str, Any]:
        """Return the encoder's description, for a patch's details; BM25 has none."""
        return {} if self.encoder is None else {ENCODER: self.encoder.describe()}

    def check(self, details: Mapping[str, Any]) -> None:
        """Refuse an encoder other than that of a patch's details.

        Raises:
            InvalidInput: It is another.
        """
        if ENCODER in details and self.encoder is not None:
            check_description(self.encoder.describe(), details[ENCODER])

    def nearest(self, queries: Sequence[str], threshold: float) -> list[int | None]:
        """Return the edit whose fact is nearest to each query; None where none is near enough."""
        found = self.index.search(queries)
        return [hits[0].place if hits and hits[0].score >= threshold else None for hits in found]


class FactsPatch(MemoryPatch):
    """Facts that the model reads before prompts.

    The config has ``encoder``, ``by_name``, ``threshold`` and ``layout``; the details have
    ``encoder``, its description, where facts are found by vectors.
    """

    served_by: ClassVar[str] = (
        "emend puts its texts in front of prompts, also of a model that an engine serves "
        "(openai:NAME)"
    )

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        Layout(self.config["layout"])
        float(self.config["threshold"])


class FactsAttachment(TextAttachment):
    """Finds the facts for prompts."""

    def __init__(self, patch: FactsPatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        self.layout = Layout(patch.config["layout"])
        self.threshold = float(patch.config["threshold"])
        self._facts: Facts | None = None

    def facts(self, tokenizer: Any) -> Facts:
        """Return the index of the patch's facts, built when it is first needed."""
        if self._facts is None:
            settings = self.patch.config["encoder"], self.patch.config["by_name"]
            with self.suspended():
                self._facts = Facts(self.patch.edits, *settings, self.model, tokenizer)
                self._facts.check(self.patch.details)
        return self._facts


def sorted_edits(previous: MemoryPatch | None, edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Return the edits of a memory, in one order whatever order they came in."""
    everything = [*(previous.edits if previous else ()), *edits]
    return tuple(sorted(everything, key=lambda edit: edit.id))


def check_readable(model: Any, tokenizer: Any, edits: Sequence[Edit]) -> None:
    """Refuse edits and models with which no prompt can do anything.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: The model's probabilities are not finite.
    """
    if tokenizer is None:  # an endpoint's own
        return
    for edit in edits:
        models.subject_token(tokenizer, edit.text, edit.subject_span)
    (found,) = models.score(model, tokenizer, [edits[0].text], [edits[0].target])
    if not abs(found.total) < float("inf"):
        raise NumericalFailure(
            "the model's probabilities are not finite: load it in float32, or fetch its weights "
            "again"
        )
