"""What is known of all other keys: second moments of several layers, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend.editing import _kept
from emend.editing._corpus import Source
from emend.editing.moments import (
    TOKENS_PER_KEY,
    Moment,
    cache_directory,
    describe_file,
    kept_moments,
    read_moment,
    warn_of_few,
)
from emend.editing.nullspace import Spectrum, spectrum_of
from emend.editing.ridge import Inverse, inverse
from emend.models import ModelView


@dataclass(frozen=True)
class KeyCovariance:
    """The second moments of some layers, counted from 0.

    Attributes:
        note: What a patch keeps of them, JSON-able.
    """

    note: dict[str, Any]
    _found: Mapping[int, Path | Moment] = field(default_factory=dict[int, "Path | Moment"])

    @property
    def on_disk(self) -> tuple[int, ...]:
        """The layers of which what is made once, such as a spectrum, is kept on disk."""
        return tuple(layer for layer, found in self._found.items() if isinstance(found, Path))

    def moment(self, layer: int) -> Tensor:
        """(inner, inner) of one layer; read from disk, so that one at a time is in memory."""
        found = self._found[layer]
        return (read_moment(found) if isinstance(found, Path) else found).matrix

    def inverse(self, layer: int, ridge: float, device: torch.device | str = "cpu") -> Inverse:
        """C^-1 of one layer by its Cholesky factor, which is kept on disk beside C.

        Raises:
            NumericalFailure: C is singular.
        """
        path = self._beside(layer, "cholesky factor", ridge=ridge)
        if path and (found := _kept.kept(path, "upper")):
            return Inverse(found[0].to(device).mT)
        metric = inverse(self.moment(layer).to(device), ridge)
        if path:
            _kept.keep(path, {"upper": metric.factor.mT}, {"ridge": ridge})
        return metric

    def spectrum(self, layer: int) -> Spectrum:
        """The eigendecomposition of one layer's C, which is kept on disk beside C."""
        path = self._beside(layer, "spectrum")
        if path and (found := _kept.kept(path, "values", "vectors")):
            return Spectrum(*found)
        spectrum = spectrum_of(self.moment(layer))
        if path:
            _kept.keep(path, {"values": spectrum.values, "vectors": spectrum.vectors}, {})
        return spectrum

    def _beside(self, layer: int, algorithm: str, **settings: Any) -> Path | None:
        """Where what an algorithm makes of a layer's C is kept; None where C is not."""
        file = self._found[layer]
        if not isinstance(file, Path):
            return None
        key = _identity.key(algorithm, of=file.name, **settings)
        return file.with_suffix(f".{algorithm.replace(' ', '-')}-{key[:12]}.safetensors")


def key_covariance(
    view: ModelView, tokenizer: Any, layers: Sequence[int], source: Source
) -> KeyCovariance:
    """Collect the key covariance of several layers in one pass, or read it from the cache.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        layers: The layers; negative numbers count from the end.
        source: The texts (see `texts_for`). Of a corpus, 20 tokens for each dimension of a key
            are read; of texts that were given themselves, all.

    Raises:
        InvalidInput: The texts cannot be read.
        NotEnoughMemory: The sums do not fit.
    """
    size = view.intermediate_size(layers[0])
    count = TOKENS_PER_KEY * size if source.packed else None
    found = kept_moments(view, tokenizer, source, layers, cache_directory(), max_tokens=count)
    first = next(iter(found.values()))
    note = describe_file(first) if isinstance(first, Path) else first.describe()
    warn_of_few(note["tokens"], size, source)
    return KeyCovariance(note, found)
