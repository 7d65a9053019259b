"""The scope classifier: how much prompts are in the scope of edits, and how that is trained."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend.edits import Edit
from emend.methods._training import backward
from emend.retrieval.encoders import Encoder

LAYOUT = "New fact: {fact}.\nPrompt: {prompt}"
"""How the counterfactual model reads an edit and a prompt."""
SIZE = 64
"""Length of the vectors that are compared, d."""
BATCH = 64
"""Edits in one step of training."""
HEAD_RATE, CROSS_RATE = 2e-3, 0.05
"""Step sizes of W, and of v and b."""
BOUNDS = (0.05, 0.95)
"""The least and the largest threshold that a training sets."""


def laid_out(edit: Edit, prompt: str, layout: str = LAYOUT) -> str:
    """Return what the counterfactual model reads of an edit and a prompt."""
    fact = f"{edit.text} {edit.target.strip()}"
    return layout.replace("{fact}", fact.rstrip(".")).replace("{prompt}", prompt)


def scopes(distances: Tensor) -> Tensor:
    """Return exp(-d^2) of distances."""
    return torch.exp(-distances.square())


def vectors_of(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Return the vectors (N, size) of texts."""
    return torch.from_numpy(encoder.encode(texts))


class ScopeClassifier:
    """Computes how much prompts are in the scope of edits.

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
        self, prompts: Sequence[str], edits: Sequence[Edit], vectors: Tensor
    ) -> list[tuple[int, float]]:
        """Return for each prompt the edit whose scope it is most in, and how much, 0 to 1."""
        asked = vectors_of(self.encoder, prompts) @ self.head.T  # (N, d)
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
        best = self._crossed(texts).reshape(-1, count).max(dim=1)
        chosen = nearest.gather(1, best.indices[:, None])[:, 0]
        return list(zip(chosen.tolist(), best.values.tolist(), strict=True))

    def _crossed(self, texts: Sequence[str]) -> Tensor:
        """Return (N,), how much the edit and the prompt of each text agree."""
        assert self.cross is not None
        logits = vectors_of(self.encoder, texts) @ self.cross[:-1].float() + self.cross[-1].float()
        return torch.sigmoid(logits)


def train_head(
    edits: Tensor,
    inside: tuple[Tensor, Tensor],
    outside: tuple[Tensor, Tensor],
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Train W, (d, size), on texts in and out of the scope of edits.

    Args:
        edits: (E, size), vectors of the edits' own prompts.
        inside: Vectors (N, size) of texts in scope, and (N,) the edit of each.
        outside: Vectors (M, size) of texts out of scope, and (M,) the edit of each.
        steps: Steps of training.
        generator: Draws the first weights and the batches.
    """
    head = torch.randn((SIZE, edits.shape[1]), generator=generator) * (2.0 / SIZE**0.5)
    with torch.enable_grad():
        head.requires_grad_(True)
        optimizer = torch.optim.Adam([head], lr=HEAD_RATE)
        for _ in progress(range(steps), "training the classifier"):
            drawn = torch.randperm(len(edits), generator=generator)[:BATCH]
            near, near_of = _of(*inside, drawn)
            far, _ = _of(*outside, drawn)
            backward(optimizer, _scope_loss(head, edits[drawn], near, near_of, far))
            optimizer.step()
    return head.detach()


def train_cross(vectors: Tensor, wanted: Tensor, steps: int) -> Tensor:
    """Train v and b, (size + 1,), on edits that are read together with a text.

    Args:
        vectors: (N, size).
        wanted: (N,), 1 where the text is in the scope of the edit and 0 else.
        steps: Steps of training.
    """
    weight = torch.where(wanted > 0, 1 / wanted.sum(), 1 / (1 - wanted).sum())
    with torch.enable_grad():
        cross = torch.zeros(vectors.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.Adam([cross], lr=CROSS_RATE)
        for _ in progress(range(steps), "training the cross form"):
            logits = vectors @ cross[:-1] + cross[-1]
            losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            backward(optimizer, (losses * weight).sum())
            optimizer.step()
    return cross.detach()


def best_threshold(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Return the threshold that classifies both kinds best, each kind counting the same.

    Between two shares it is their mean; of equally good ones the lowest is taken, so that for two
    kinds that are apart it is the middle of the gap. It is held inside `BOUNDS`.
    """
    points = sorted({*inside, *outside, 0.0, 1.0})
    middles = [(low + high) / 2 for low, high in itertools.pairwise(points)]

    def right(threshold: float) -> float:
        found = sum(share > threshold for share in inside) / len(inside)
        return found + sum(share <= threshold for share in outside) / len(outside)

    return min(max(max(middles, key=right), BOUNDS[0]), BOUNDS[1])


def _of(vectors: Tensor, owners: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors that belong to drawn edits, and the places of these among the drawn."""
    texts, places = (owners[:, None] == drawn).nonzero().unbind(1)
    return vectors[texts], places


def _scope_loss(head: Tensor, own: Tensor, near: Tensor, near_of: Tensor, far: Tensor) -> Tensor:
    """Return -log s of what is in scope, and -log(1 - s) of the nearest edit of what is not."""
    edits, asked = own @ head.T, near @ head.T
    distances = (asked - edits[near_of]).square().sum(-1)  # -log s
    own_place = F.one_hot(near_of, len(own)).bool()
    strange = torch.cdist(asked, edits).masked_fill(own_place, float("inf")).min(1).values
    if len(far):
        strange = torch.cat([strange, torch.cdist(far @ head.T, edits).min(1).values])
    strange = strange[strange.isfinite()]
    left = -torch.log1p(-scopes(strange.clamp(min=1e-2)))
    return distances.mean() + (left.mean() if len(left) else 0.0)
