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
from emend.retrieval import NamedIndex, WordIndex
from emend.retrieval.encoders import KeyEncoder
from emend.retrieval.naming import encoder_of

NAME = "serac"
NAMED = "name"
FORMS = ("embedding", "cross", NAMED)
NEGLIGIBLE = 1e-4
"""A weight below which a model is not asked."""


class ScopePatch(MemoryPatch):
    """Edits, the scope classifier and the counterfactual model.

    tensors: ``vectors`` (E, size), of the edits' prompts; ``head`` (d, size), W; ``cross``
    (size + 1,), v and b, where the form is cross; ``A.NAME`` (r, in) and ``B.NAME`` (out, r), the
    adapter at module NAME; float32.
    details: ``encoder``, its description; ``form``, "embedding", "cross" or "name";
    ``candidates``, how many of the nearest the cross form reads; ``threshold``; ``soft``;
    ``layout``. A memory of the form "name" has no vectors, head and encoder (None): in the scope of
    an edit is a prompt that names its subject, word for word.
    """

    def check(self) -> None:
        """See `MemoryPatch.check`."""
        if self.details["form"] not in FORMS:
            raise ValueError(f"form ({self.details['form']!r})")
        for name in ("encoder", "candidates", "threshold", "soft", "layout"):
            self.details[name]
        if self.named:
            return
        vectors, head = self.tensors["vectors"], self.tensors["head"]
        if len(vectors) != len(self.edits):
            raise ValueError(f"the number of edits ({len(vectors)} vectors)")
        if len(vectors) and vectors.shape[1] != head.shape[1]:
            raise ValueError(f"the size of vectors ({vectors.shape[1]}, {head.shape[1]})")
        if self.details["form"] == "cross":
            self.tensors["cross"]

    @property
    def named(self) -> bool:
        """Whether the scope of an edit are the prompts that name its subject."""
        return self.details["form"] == NAMED

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
        if self.named:
            return replace(self, edits=edits)
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
        tensors = dict(self.tensors)
        if self.details["form"] != NAMED:
            known = 0 if vectors is None else len(vectors)
            encoder = encoder_of(self.details["encoder"], model, tokenizer)
            new = vectors_of(encoder, [edit.text for edit in edits[known:]])
            tensors["vectors"] = new if vectors is None else torch.cat([vectors, new])
        return ScopePatch(
            edits=edits,
            method=NAME,
            config=dict(config),
            base=self.base,
            tensors=tensors,
            details={**self.details, **details},
        )


def named_memory(
    edits: Sequence[Edit],
    adapter: Mapping[str, LowRank],
    base: Mapping[str, Any],
    config: Mapping[str, Any],
    layout: str = "{prompt}",
) -> ScopePatch:
    """Make a memory of the form "name" with a counterfactual model that is there already.

    Args:
        edits: The edits; a prompt that names the subject of one is in scope.
        adapter: The counterfactual model's difference from the base, by module.
        base: The model that it was trained for; see `emend.patches.describe_base`.
        config: Settings to save with the patch.
        layout: What the counterfactual model reads, with "{prompt}" and maybe "{fact}"; by default
            the prompt alone.
    """
    factors = [(name, *factor.matrices()) for name, factor in adapter.items()]
    tensors = {f"A.{name}": a.float() for name, a, _ in factors}
    tensors |= {f"B.{name}": b.float() for name, _, b in factors}
    details = {"encoder": None, "form": NAMED, "candidates": 1, "threshold": 0.5, "soft": False}
    return ScopePatch(
        edits=tuple(edits),
        method=NAME,
        config=dict(config),
        base=base,
        tensors=tensors,
        details={**details, "layout": layout},
    )


def named_in(prompts: Sequence[str], edits: Sequence[Edit]) -> list[tuple[int, float]]:
    """Return for each prompt an edit whose subject it names, with 1; with 0 where it names none."""
    index = NamedIndex(WordIndex([edit.text for edit in edits]), [edit.subject for edit in edits])
    found = index.search(prompts)
    return [(hits[0].place, float(hits[0].named)) if hits else (0, 0.0) for hits in found]


class ScopeAttachment(TextAttachment):
    """Routes prompts between a model and its counterfactual self."""

    def __init__(self, patch: ScopePatch, model: nn.Module) -> None:
        self._encoder = None if patch.named else encoder_of(patch.details["encoder"], model, None)
        counterfactual = WeightAttachment(patch, model, patch.adapter)
        super().__init__(patch, model)
        self.memory = patch
        self.counterfactual = counterfactual

    def classifier(self, tokenizer: Any) -> ScopeClassifier:
        """Return the scope classifier; the tokenizer comes with the prompts."""
        encoder = self._encoder
        assert encoder is not None
        if isinstance(encoder, KeyEncoder):
            encoder = KeyEncoder(self.model, tokenizer, encoder.modules)
        return ScopeClassifier(encoder, self.memory.tensors, self.memory.details)

    def route(
        self, prompts: Sequence[str], tokenizer: Any
    ) -> list[tuple[MixtureComponent, ...] | None]:
        """See `Attachment.route`."""
        if not self.memory.edits:
            return [None] * len(prompts)
        if self.memory.named:
            best = named_in(prompts, self.memory.edits)
        else:
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
