"""IKE: the model reads a new fact before the prompt, and demonstrations of how to use it.

Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context Learning?", arXiv 2305.12740.

    P(y | x, f, C),   C = {c_1, ..., c_k}, the facts most like f, the most like last
    c_i: copy    f_i -> x_i  : y*_i             its own prompt
         update  f_i -> x'_i : y*_i             other words for it
         retain  f_i -> x''_i: y''_i            another fact, which stays

    paper     here
    f         `statement(edit)`, the new fact as a sentence
    C, k      `choose`, `k`: demonstrations, copy : update : retain = 1 : 3 : 4
    x         the prompt, as `Attachment.prepare` is given it
    alpha     `contrast`

Many edits are in memory at once: each prompt gets the fact nearest to it, whatever the prompt is,
as published; with a `threshold`, prompts that no fact is near stay as they are. Without
demonstrations (`k=0`) this is in-context editing (ICE).

A model that insists on what it knows follows the fact with `contrast`, alpha of context-aware
decoding (Shi et al. 2023, arXiv 2305.14739), which asks twice and needs a model with probabilities:

    p(y) ~ p(y | x, f, C)^(1 + alpha) / p(y | x)^alpha

Deviations: facts are compared by their words (BM25) unless another `encoder` is named, since
all-MiniLM-L6-v2 is not at hand everywhere; demonstrations are 32 facts of general knowledge that
ship, or those of a dataset or file, and none of them names a subject that is edited. The published
code cuts nothing; here demonstrations that the model has no room for are left out, the least like
first, and the card states how many fit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from emend._settings import NotNegative, Whole
from emend._warn import warn
from emend.editing.session import Session
from emend.edits import Edit
from emend.errors import UnsupportedModel
from emend.methods._method import method
from emend.methods.in_context._demonstrations import Demonstration, choose, pool_of
from emend.methods.in_context._facts import (
    LAYOUT,
    Facts,
    FactsAttachment,
    FactsPatch,
    Layout,
    check_readable,
    count_tokens,
    fitted,
    room_of,
    sorted_edits,
    statement,
)
from emend.models import Attachment, Endpoint
from emend.retrieval import check_encoder

SEPARATOR = "\n\n"
"""Between two demonstrations, as published."""
RESERVE = 64
"""Tokens that are left free for the answer."""


@dataclass(frozen=True)
class IkeConfig:
    """Settings of IKE."""

    k: Whole = 32
    """Demonstrations before a prompt, at most; 0 for in-context editing without any."""
    demonstrations: str = "general"
    """What they are made of: general (ships), a dataset such as lab, a file of edits, or none."""
    ratio: tuple[Whole, Whole, Whole] = (1, 3, 4)
    """Parts of copy, update and retain among them."""
    contrast: NotNegative = 0.0
    """How much of the answer without the fact is taken off the answer with it."""
    threshold: NotNegative = 0.0
    """A fact less near than this is left out; 0 puts one before every prompt, as published."""
    encoder: str = "bm25"
    """How facts are compared: bm25, states, or a sentence-transformers model."""
    by_name: bool = True
    """Whether facts whose subject is named come before all others."""
    layout: str = LAYOUT
    """How a fact and a prompt are written; with {fact}, and {prompt} at its end."""

    def __post_init__(self) -> None:
        check_encoder(self.encoder)


class IkePatch(FactsPatch):
    """Facts and their demonstrations.

    ``details`` holds ``demonstrations`` (each a list of kind, fact, prompt and answer),
    ``chosen`` (for each edit's id the places of its own, the most like last) and ``room`` (how
    many of them the context holds).
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        super().check()
        float(self.config["contrast"])
        demonstrations = self.demonstrations
        for edit in self.edits:
            for place in self.details["chosen"].get(edit.id, ()):
                demonstrations[place]

    @property
    def demonstrations(self) -> list[Demonstration]:
        """All of them."""
        return [Demonstration(*parts) for parts in self.details["demonstrations"]]

    def attachment(self, model: nn.Module) -> Attachment:
        """See `MemoryPatch.attachment`."""
        return IkeAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> IkePatch:
        """See `MemoryPatch.selected`."""
        chosen = {edit.id: self.details["chosen"].get(edit.id, []) for edit in edits}
        return replace(self, edits=edits, details={**self.details, "chosen": chosen})

    def card(self) -> dict[str, Any]:
        """See `MemoryPatch.card`."""
        return {**super().card(), "context": self.details["room"]}


class IkeAttachment(FactsAttachment):
    """Puts facts before prompts."""

    def __init__(self, patch: IkePatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        self._writer = Writer(self.layout, patch.demonstrations, patch.details["chosen"])
        self._warned_cut = False
        self.contrast = float(patch.config["contrast"])

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """See `Attachment.prepare`; a prompt that no fact is near enough to stays as it is."""
        if not self.active or not self.patch.edits:
            return list(prompts)
        facts = self.facts(tokenizer)
        room = room_of(self.model, RESERVE)
        prepared: list[str] = []
        places = facts.nearest(prompts, self.threshold)
        for prompt, place in zip(prompts, places, strict=True):
            edit = None if place is None else facts.edits[place]
            text, left_out = self._writer.write(edit, prompt, room, tokenizer)
            self._warn_cut(left_out)
            prepared.append(text)
        return prepared

    def _warn_cut(self, left_out: int) -> None:
        if left_out and not self._warned_cut:
            self._warned_cut = True
            warnings.warn(
                f"{left_out} facts and demonstrations are left out before a prompt, and maybe more "
                "before others: the model reads no more; ask for fewer (k) to have none left out",
                stacklevel=7,
            )


class Writer:
    """Writes what a model reads instead of a prompt.

    Args:
        layout: How facts and prompts are written.
        demonstrations: All there are.
        chosen: By an edit's id, which of them are its own.
    """

    def __init__(
        self,
        layout: Layout,
        demonstrations: Sequence[Demonstration],
        chosen: Mapping[str, Sequence[int]],
    ) -> None:
        self.layout, self.demonstrations, self.chosen = layout, demonstrations, chosen

    def write(
        self, edit: Edit | None, prompt: str, room: int | None, tokenizer: Any
    ) -> tuple[str, int]:
        """Write the fact of an edit before a prompt, with its demonstrations and its own copy.

        Returns:
            The text, and how many blocks were left out for want of room. Where not even the
            fact has room the prompt stays as it is.
        """
        if edit is None:
            return prompt, 0
        fact = statement(edit)
        own = [self.demonstrations[place] for place in self.chosen.get(edit.id, ())]
        blocks = [self.layout.answered(one.fact, one.prompt, one.answer) for one in own]
        if blocks:
            blocks.append(self.layout.answered(fact, edit.text, edit.target))
        last = self.layout.block(fact, prompt)
        if room is not None and count_tokens(tokenizer, last) > room:
            return prompt, len(blocks) + 1
        text, count = fitted(blocks, last, SEPARATOR, room, tokenizer)
        return text, len(blocks) - count


@method(
    title="IKE: the model reads a new fact before the prompt, with demonstrations of its use",
    paper="Zheng et al. 2023, arXiv 2305.12740",
    when="no change of weights at all; a model that follows what it reads; also over an API",
    avoid="cases where a prompt has no room left; a base model that does not follow what it reads",
    continues="append",
    order_invariant=True,
    prompt_only=True,
)
def ike(session: Session, config: IkeConfig) -> IkePatch:
    """Remember facts with demonstrations chosen for each."""
    model, tokenizer = session.model, session.tokenizer
    check_readable(model, tokenizer, session.edits)
    if config.contrast and isinstance(model, Endpoint):
        raise UnsupportedModel(
            f"{model.name} gives no probabilities to be compared, expected a model with its "
            "weights here: leave contrast=0"
        )
    everything = sorted_edits(session.memory, session.edits)
    facts = Facts(everything, config.encoder, config.by_name, model, tokenizer)
    session.fill(ratio=list(config.ratio))
    demonstrations, chosen = _demonstrations(facts, config, model, tokenizer)
    writer = Writer(Layout(config.layout), demonstrations, chosen)
    return IkePatch(
        edits=everything,
        details={
            "demonstrations": [list(asdict(one).values()) for one in demonstrations],
            "chosen": chosen,
            "room": _fitting(writer, everything, room_of(model, RESERVE), tokenizer),
            **facts.description(),
        },
        **session.record(),
    )


def _demonstrations(
    facts: Facts, config: IkeConfig, model: Any, tokenizer: Any
) -> tuple[list[Demonstration], dict[str, list[int]]]:
    """Return every demonstration once, and the places of those of each edit."""
    if config.k == 0:
        return [], {}
    pool = pool_of(config.demonstrations, config.encoder, model=model, tokenizer=tokenizer)
    subjects = sorted({edit.subject for edit in facts.edits})
    places: dict[Demonstration, int] = {}
    chosen: dict[str, list[int]] = {}
    for edit, fact in zip(facts.edits, facts.texts, strict=True):
        own = choose(pool, fact, count=config.k, ratio=config.ratio, without=subjects, seed=edit.id)
        chosen[edit.id] = [places.setdefault(one, len(places)) for one in own]
    return list(places), chosen


def _fitting(
    writer: Writer, edits: Sequence[Edit], room: int | None, tokenizer: Any
) -> dict[str, Any]:
    """Count the demonstrations that fit before the edits' own prompts; warn where not all do."""
    wanted = max((len(places) for places in writer.chosen.values()), default=0)
    least = wanted
    if wanted and room is not None:
        for edit in edits:
            left_out = writer.write(edit, edit.text, room, tokenizer)[1]
            least = min(least, max(0, len(writer.chosen[edit.id]) - left_out))
    if least < wanted:
        warn(
            f"the model's context holds {least} of {wanted} demonstrations before the longest "
            f"prompt: the least like are left out; k={least} asks for no more"
        )
    return {"tokens": room, "demonstrations": wanted, "fitting": least}
