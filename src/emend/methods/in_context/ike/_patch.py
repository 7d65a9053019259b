"""Facts that are put before the prompts that they are nearest to, with demonstrations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from emend.edits import Edit
from emend.methods.in_context._demonstrations import Demonstration
from emend.methods.in_context._facts import FactLayout, count_tokens, fitted, room_of, statement
from emend.methods.in_context._recall import Facts
from emend.models import Attachment, TextAttachment
from emend.patches import MemoryPatch


class IkePatch(MemoryPatch):
    """Facts and their demonstrations.

    ``details`` holds ``demonstrations`` (each a list of kind, fact, prompt and answer),
    ``chosen`` (for each edit's id the places of its own, the likest last), ``room`` (how many of
    them the context holds) and, where facts are sought by vectors, ``encoder``.
    """

    served_by: ClassVar[str] = (
        "emend puts its texts in front of prompts, also of a model that an engine serves "
        "(openai:NAME)"
    )

    def check(self) -> None:
        """See :meth:`MemoryPatch.check`."""
        layout_of(self.config)
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
        """See :meth:`MemoryPatch.attachment`."""
        return IkeAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> IkePatch:
        """See :meth:`MemoryPatch.selected`."""
        chosen = {edit.id: self.details["chosen"].get(edit.id, []) for edit in edits}
        return replace(self, edits=edits, details={**self.details, "chosen": chosen})

    def card(self) -> dict[str, Any]:
        """See :meth:`MemoryPatch.card`."""
        return {**super().card(), "context": self.details["room"]}


class IkeAttachment(TextAttachment):
    """Puts facts before prompts."""

    def __init__(self, patch: IkePatch, model: nn.Module) -> None:
        super().__init__(patch, model)
        self._facts: Facts | None = None
        self._writer = Writer(patch.config, patch.demonstrations, patch.details["chosen"])
        self._told_cut = False
        self.contrast = float(patch.config["contrast"])

    def prepare(self, prompts: Sequence[str], tokenizer: Any) -> list[str]:
        """See `Attachment.prepare`; a prompt that no fact is near enough to stays as it is."""
        if not self.active or not self.patch.edits:
            return list(prompts)
        facts = self._remembered(tokenizer)
        found = facts.nearest(prompts, int(self.patch.config["facts"]))
        room = room_of(self.model, int(self.patch.config["reserve"]))
        prepared: list[str] = []
        for prompt, hits in zip(prompts, found, strict=True):
            near = [hit for hit in hits if hit.score >= self.patch.config["threshold"]]
            edits = [facts.edits[hit.place] for hit in reversed(near)]
            text, left_out = self._writer.write(edits, prompt, room, tokenizer)
            self._tell_cut(left_out)
            prepared.append(text)
        return prepared

    def _remembered(self, tokenizer: Any) -> Facts:
        if self._facts is None:
            settings = self.patch.config["encoder"], self.patch.config["by_name"]
            with self.suspended():
                self._facts = Facts(self.patch.edits, *settings, self.model, tokenizer)
                self._facts.check(self.patch.details)
        return self._facts

    def _tell_cut(self, left_out: int) -> None:
        if left_out and not self._told_cut:
            self._told_cut = True
            warnings.warn(
                f"{left_out} facts and demonstrations are left out before a prompt, and maybe more "
                "before others: the model reads no more; ask for fewer (k) to have none left out",
                stacklevel=7,
            )


class Writer:
    """Writes what a model reads instead of a prompt.

    Args:
        config: The method's settings.
        demonstrations: All there are.
        chosen: By an edit's id, which of them are its own.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        demonstrations: Sequence[Demonstration],
        chosen: Mapping[str, Sequence[int]],
    ) -> None:
        self.layout = layout_of(config)
        self.own_copy = bool(config["own_copy"])
        self.demonstrations = demonstrations
        self.chosen = chosen

    def write(
        self, edits: Sequence[Edit], prompt: str, room: int | None, tokenizer: Any
    ) -> tuple[str, int]:
        """A prompt with facts before it, the nearest of them last.

        Returns:
            The text, and how many blocks were left out for want of room. Where not even the
            facts have room the prompt stays as it is.
        """
        if not edits:
            return prompt, 0
        facts = [statement(edit) for edit in edits]
        nearest = edits[-1]
        blocks = [self._block(place) for place in self.chosen.get(nearest.id, ())]
        if self.own_copy:
            blocks.append(self.layout.answered(facts[-1:], nearest.text, nearest.target))
        last = self.layout.block(facts, prompt)
        if room is not None and count_tokens(tokenizer, last) > room:
            return prompt, len(blocks) + len(facts)
        text, kept = fitted(blocks, last, self.layout.separator, room, tokenizer)
        return text, len(blocks) - kept

    def _block(self, place: int) -> str:
        one = self.demonstrations[place]
        return self.layout.answered([one.fact], one.prompt, one.answer)


def layout_of(config: Mapping[str, Any]) -> FactLayout:
    """The layout that settings give."""
    return FactLayout(config["fact_line"], config["prompt_line"], config["separator"])
