"""A memory of edits, a classifier of their scope, and a model that answers inside it (SERAC).

Of every prompt the classifier says how much it is about the nearest remembered edit:

    s = exp(-|W x - W x_i|^2)            x, x_i: vectors of the prompt and of the edit's
    s = sigmoid(v^T y_i + b)             cross: y_i the vector of both, read together

In scope (s over the threshold) the counterfactual model answers, reading the edit before the
prompt; else the unedited model does, untouched. Softly, both answer with the weights s and 1 - s.
The counterfactual model is the base model with an adapter, which acts for it alone.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from emend.edits import Edit
from emend.methods.serac._encoders import Encoder, encoder_of
from emend.models import MixtureComponent, TextAttachment, acting, base
from emend.patches import LowRank, MemoryPatch, WeightAttachment

LAYOUT = "New fact: {fact}.\nPrompt: {prompt}"
"""How the counterfactual model reads an edit and a prompt."""

NEGLIGIBLE = 1e-4
"""A weight below which a component is not asked."""


def laid_out(edit: Edit, prompt: str, layout: str = LAYOUT) -> str:
    """What the counterfactual model reads of an edit and a prompt."""
    fact = f"{edit.text} {edit.target.strip()}"
    return layout.replace("{fact}", fact.rstrip(".")).replace("{prompt}", prompt)


def scopes(distances: Tensor) -> Tensor:
    """exp(-d^2) of distances."""
    return torch.exp(-distances.square())


class ScopePatch(MemoryPatch):
    """See the module.

    tensors: ``vectors`` (E, size), of the edits' prompts; ``head`` (d, size), W; ``cross``
    (size + 1,), v and b, where the form is cross; ``A.NAME`` (r, in) and ``B.NAME`` (out, r), the
    adapter at module NAME; float32.
    details: ``encoder``, see `_encoders`; ``form``, "embedding" or "cross"; ``candidates``, how
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
        said = {name: self.details[name] for name in ("form", "threshold", "soft", "encoder")}
        return {**super().card(), **said}


class Judge:
    """Says how much prompts are about edits.

    Args:
        encoder: Makes their vectors.
        tensors: ``head`` and, for the cross form, ``cross``.
        details: See `ScopePatch`.
    """

    def __init__(
        self, encoder: Encoder, tensors: Mapping[str, Tensor], details: Mapping[str, Any]
    ) -> None:
        self.encoder, self.details = encoder, details
        self.head = tensors["head"].float()
        self.cross = tensors.get("cross")

    def best(
        self,
        model: nn.Module,
        tokenizer: Any,
        prompts: Sequence[str],
        edits: Sequence[Edit],
        vectors: Tensor,
    ) -> list[tuple[int, float]]:
        """For each prompt the number of the edit that it is most about, and how much, 0 to 1."""
        asked = self.encoder.encode(model, tokenizer, prompts) @ self.head.T  # (N, d)
        known = vectors.float() @ self.head.T  # (E, d)
        distances = torch.cdist(asked, known, compute_mode="donot_use_mm_for_euclid_dist")
        if self.details["form"] == "embedding":
            found = scopes(distances).max(dim=1)
            return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))
        count = min(int(self.details["candidates"]), len(edits))
        nearest = distances.topk(count, dim=1, largest=False).indices  # (N, count)
        texts = [
            laid_out(edits[number], prompt, self.details["layout"])
            for prompt, row in zip(prompts, nearest.tolist(), strict=True)
            for number in row
        ]
        shares = self.crossed(self.encoder.encode(model, tokenizer, texts)).reshape(-1, count)
        best = shares.max(dim=1)
        chosen = nearest.gather(1, best.indices[:, None])[:, 0]
        return list(zip(chosen.tolist(), best.values.tolist(), strict=True))

    def crossed(self, vectors: Tensor) -> Tensor:
        """(N, size) vectors of edits and prompts read together -> (N,) how much they agree."""
        assert self.cross is not None
        return torch.sigmoid(vectors @ self.cross[:-1].float() + self.cross[-1].float())


class ScopeAttachment(TextAttachment):
    """Routes prompts between a model and its counterfactual self."""

    def __init__(self, patch: ScopePatch, model: nn.Module) -> None:
        encoder = encoder_of(patch.details["encoder"])
        counterfactual = WeightAttachment(patch, model, patch.adapter)
        super().__init__(patch, model)
        self.memory = patch
        self.counterfactual = counterfactual
        self.judge = Judge(encoder, patch.tensors, patch.details)

    def route(
        self, prompts: Sequence[str], tokenizer: Any
    ) -> list[tuple[MixtureComponent, ...] | None]:
        """See `Attachment.route`."""
        if not self.memory.edits:
            return [None] * len(prompts)
        best = self.judge.best(
            self.model, tokenizer, prompts, self.memory.edits, self.memory.tensors["vectors"]
        )
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
        """The model is its counterfactual self inside, and nothing else acts on it."""
        with base(self.model), acting(self.model, self.counterfactual):
            yield
