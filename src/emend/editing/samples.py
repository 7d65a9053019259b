"""Texts sampled from the model itself, for a key covariance where no texts are given.

Each begins with the start token and one token drawn uniformly from the vocabulary, and continues
by the model's own probabilities, as in Moir (ICML 2026 workshop, openreview SHqpI6E5cw). So every
model has texts, in its own language. docs/statistics.md shows how many are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend import _identity
from emend.editing import tensor_cache
from emend.editing.texts import Source
from emend.models import ModelView, base, ensure_start, model_fingerprint
from emend.models.forward import longest_text
from emend.models.sampling import barred, sample
from emend.models.start import front_ids

TOKENS_PER_KEY = 4
"""Tokens sampled for each dimension of a key."""

MOST = 16_384
"""Most tokens sampled by default."""

LENGTH = 64
"""Tokens of a sample, without the start token."""

LABEL = "sampling the model's own texts"

TOGETHER = 64
"""Samples generated in one pass."""


@dataclass(eq=False)
class OwnSamples(Source):
    """Texts sampled from the model whose keys they are for, each a row of its own.

    Attributes:
        model: A causal language model; attached patches do not act.
        tokenizer: Its tokenizer.
        tokens: Total tokens without start tokens; rounded up to whole samples.
        seed: Seed of a private generator.
    """

    model: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    tokens: int
    seed: int = 0
    packed: bool = field(default=False, init=False)
    _rows: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """See `Source`."""
        return f"own samples, {self.count * self.length:,} tokens, seed {self.seed}"

    @property
    def length(self) -> int:
        """Tokens of a sample without the start token."""
        longest = longest_text(self.model)
        room = LENGTH if longest is None else longest - len(self._front)
        return max(1, min(LENGTH, room))

    @property
    def count(self) -> int:
        """Number of samples."""
        return -(-self.tokens // self.length)

    def _identify(self) -> dict[str, Any]:
        return {
            "form": "own samples",
            "model": model_fingerprint(self.model),
            "tokenizer": _identity.tokenizer_fingerprint(self.tokenizer),
            "samples": [self.count, self.length, TOGETHER],
            "seed": self.seed,
        }

    def documents(self, skip: int = 0) -> Iterator[str]:
        """See `Source`."""
        texts = self.tokenizer.batch_decode(self.rows(), skip_special_tokens=True)
        return islice((text for text in texts if text.strip()), skip, None)

    def rows(self, cache: Path | None = None) -> Tensor:
        """Return the samples as token ids; they are generated once.

        Args:
            cache: Directory to read them from and write them to; None for memory alone.

        Returns:
            (count, front + length) int64, each with the start token's ids in front.

        Raises:
            NumericalFailure: The model's logits are not finite.
        """
        if self._rows is None:
            path = cache and cache / f"{self.identity}.samples.safetensors"
            found = tensor_cache.read(path, "samples") if path else None
            with base(self.model):
                self._rows = found[0] if found else self._sampled()
            if path and not found:
                tensor_cache.write(path, {"samples": self._rows}, {"source": self.name})
        return self._rows

    @property
    def _front(self) -> tuple[int, ...]:
        ensure_start(self.model, self.tokenizer)
        return front_ids(self.tokenizer)

    def _sampled(self) -> Tensor:
        network: Any = self.model
        vocabulary = len(network.get_input_embeddings().weight)
        generator = torch.Generator().manual_seed(self.seed)
        usable = torch.ones(vocabulary, dtype=torch.bool)
        usable[barred(self.tokenizer, vocabulary)] = False
        tokens = usable.nonzero()[:, 0]
        drawn = torch.randint(len(tokens), (self.count,), generator=generator)
        front = torch.tensor([self._front] * self.count, dtype=torch.long)
        begun = torch.cat([front.reshape(self.count, -1), tokens[drawn][:, None]], dim=1)
        length = begun.shape[1] - 1 + self.length
        made = [
            sample(self.model, self.tokenizer, some, length, generator, label=LABEL)
            for some in begun.split(TOGETHER)
        ]
        return torch.cat(made)


def own_samples(
    view: ModelView, tokenizer: Any, tokens: int | None = None, seed: int = 0
) -> OwnSamples:
    """Return the samples that a model's key covariances are taken over by default.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        tokens: Number of tokens; by default four for each dimension of its largest key, at most
            16,384.
        seed: Seed of the sampling.
    """
    if tokens is None:
        largest = max(view.intermediate_size(layer) for layer in view.editable)
        tokens = min(TOKENS_PER_KEY * largest, MOST)
    return OwnSamples(view.model, tokenizer, tokens, seed)
