"""SERAC's memory: which edit a prompt is in the scope of, and who answers it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from emend.edits import Edit
from emend.methods.serac._classifier import ScopeClassifier, laid_out, vectors_of
from emend.models import MixtureComponent, TextAttachment, acting, base
from emend.patches import LowRank, MemoryPatch, WeightAttachment
from emend.retrieval.encoders import KeyEncoder
from emend.retrieval.naming import encoder_of

NAME = "serac"
NEGLIGIBLE = 1e-4
"""A weight below which a model is not asked."""


class ScopePatch(MemoryPatch):
    """Edits, the scope classifier and the counterfactual model.

    tensors: ``vectors`` (E, size), of the edits' prompts; ``head`` (d, size), W; ``cross``
    (size + 1,), v and b, where the form is cross; ``A.NAME`` (r, in) and ``B.NAME`` (out, r), the
    adapter at module NAME; float32.
    details: ``encoder``, its description; ``form``, "embedding" or "cross"; ``candidates``, how
    many of the nearest the cross form reads; ``threshold``; ``soft``; ``layout``.
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        vectors, head = self.tensors["vectors"], self.tensors["head"]
        if len(vectors) != len(self.edits):
            raise ValueError(f"the number of edits ({len(vectors)} vectors)")
        if len(vectors) and vectors.shape[1] != head.shape[1]:
            raise ValueError(f"the size of vectors ({vectors.shape[1]}, {head.shape[1]})")
        if self.details["form"] not in ("embedding", "cross"):
            raise ValueError(f"form ({self.details['form']!r})")
        for name in ("encoder", "candidates", "threshold", "soft", "layout"):
            self.details[name]
        if self.details["form"] == "cross":
            self.tensors["cross"]

    @property
    def adapter(self) -> dict[str, LowRank]:
        """The counterfactual model's difference from the base, by module."""
        return {
            name[2:]: LowRank(self.tensors[name], self.tensors[f"B.{name[2:]}"])
            for name in self.tensors
            if name.startswith("A.")
        }

    def attachment(self, model: nn.Module) -> ScopeAttachment:
        """See `MemoryPatch.attachment`."""
        return ScopeAttachment(self, model)

    def selected(self, edits: tuple[Edit, ...]) -> MemoryPatch:
        """See `MemoryPatch.selected`."""
        wanted = {edit.id for edit in edits}
        places = [number for number, edit in enumerate(self.edits) if edit.id in wanted]
        vectors = self.tensors["vectors"][places]
        return replace(self, edits=edits, tensors={**self.tensors, "vectors": vectors})

    def card(self) -> dict[str, Any]:
        """See `Patch.card`."""
        shown = {name: self.details[name] for name in ("form", "threshold", "soft", "encoder")}
        return {**super().card(), **shown}


@dataclass(frozen=True)
class ScopeState:
    """What was trained.

    Attributes:
        tensors: As `ScopePatch` has them, but for the edits' vectors.
        details: As `ScopePatch` has them.
        base: The model that it was trained for.
    """

    tensors: Mapping[str, Tensor]
    details: Mapping[str, Any]
    base: Mapping[str, Any]

    def memory(
        self,
        model: Any,
        tokenizer: Any,
        edits: tuple[Edit, ...],
        config: Mapping[str, Any],
        vectors: Tensor | None = None,
        **details: Any,
    ) -> ScopePatch:
        """Make the memory of some edits.

        Args:
            model: The unedited model.
            tokenizer: Its tokenizer.
            edits: The edits.
            config: Settings to save with the patch.
            vectors: (n, size) of the first n edits, where they are known.
            details: What differs from the state's.
        """
        known = 0 if vectors is None else len(vectors)
        encoder = encoder_of(self.details["encoder"], model, tokenizer)
        new = vectors_of(encoder, [edit.text for edit in edits[known:]])
        whole = new if vectors is None else torch.cat([vectors, new])
        return ScopePatch(
            edits=edits,
            method=NAME,
            config=dict(config),
            base=self.base,
            tensors={**self.tensors, "vectors": whole},
            details={**self.details, **details},
        )


class ScopeAttachment(TextAttachment):
    """Routes prompts between a model and its counterfactual self."""

    def __init__(self, patch: ScopePatch, model: nn.Module) -> None:
        self._encoder = encoder_of(patch.details["encoder"], model, None)
        counterfactual = WeightAttachment(patch, model, patch.adapter)
        super().__init__(patch, model)
        self.memory = patch
        self.counterfactual = counterfactual

    def classifier(self, tokenizer: Any) -> ScopeClassifier:
        """Return the scope classifier; the tokenizer comes with the prompts."""
        encoder = self._encoder
        if isinstance(encoder, KeyEncoder):
            encoder = KeyEncoder(self.model, tokenizer, encoder.modules)
        return ScopeClassifier(encoder, self.memory.tensors, self.memory.details)

    def route(
        self, prompts: Sequence[str], tokenizer: Any
    ) -> list[tuple[MixtureComponent, ...] | None]:
        """See `Attachment.route`."""
        if not self.memory.edits:
            return [None] * len(prompts)
        vectors = self.memory.tensors["vectors"]
        best = self.classifier(tokenizer).best(prompts, self.memory.edits, vectors)
        return [self._components(p, *each) for p, each in zip(prompts, best, strict=True)]

    def _components(
        self, prompt: str, number: int, share: float
    ) -> tuple[MixtureComponent, ...] | None:
        if not self.memory.details["soft"]:
            share = float(share > self.memory.details["threshold"])
        if share < NEGLIGIBLE:
            return None
        read = laid_out(self.memory.edits[number], prompt, self.memory.details["layout"])
        if share > 1 - NEGLIGIBLE:
            return (MixtureComponent(self.model, read, 1.0, self.speaking),)
        other = MixtureComponent(self.model, read, share, self.speaking)
        return MixtureComponent(self.model, prompt, 1.0 - share), other

    @contextmanager
    def speaking(self) -> Generator[None, None, None]:
        """Make the model its counterfactual self inside the block; nothing else acts on it."""
        with base(self.model), acting(self.model, self.counterfactual):
            yield
