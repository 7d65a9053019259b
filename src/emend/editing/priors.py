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
from emend.editing.joint import Inverse, inverse
from emend.editing.moments import (
    TOKENS_PER_KEY,
    Moment,
    cache_directory,
    describe_file,
    kept_moments,
    read_moment,
    second_moments,
    warn_of_few,
)
from emend.editing.nullspace import Spectrum, spectrum_of
from emend.editing.solvers import RIDGE
from emend.editing.sources import OwnSamples
from emend.models import ModelView

OWN_RIDGE = 1.0
"""Ridge on a second moment over the model's own samples, in parts of its mean diagonal."""


@dataclass(frozen=True)
class Prior:
    """The second moments of some layers, counted from 0.

    Attributes:
        note: What a patch keeps of them, JSON-able.
    """

    note: dict[str, Any]
    _found: Mapping[int, Path | Moment] = field(default_factory=dict[int, "Path | Moment"])

    @property
    def kept(self) -> tuple[int, ...]:
        """The layers of which what is made once, such as a spectrum, is kept on disk."""
        return tuple(layer for layer, found in self._found.items() if isinstance(found, Path))

    def moment(self, layer: int) -> Tensor:
        """(inner, inner) of one layer; read from disk, so that one at a time is in memory."""
        found = self._found[layer]
        return (read_moment(found) if isinstance(found, Path) else found).matrix

    def inverse(self, layer: int, ridge: float, device: torch.device) -> Inverse:
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


def prior_for(
    view: ModelView,
    tokenizer: Any,
    layers: Sequence[int],
    source: Source,
    *,
    cache: bool = True,
    max_tokens: int | None = None,
) -> Prior:
    """The second moments of several layers, collected in one pass.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        layers: The blocks; negative numbers count from the end.
        source: The texts to take them over (see `texts_for`).
        cache: Whether to look for them and to keep them on disk.
        max_tokens: See `second_moments`; by default 20 for each dimension of a key, and of texts
            that were given themselves all.
    """
    size = view.intermediate_size(layers[0])
    count = max_tokens or (TOKENS_PER_KEY * size if source.packed else None)
    found: Mapping[int, Path | Moment]
    if cache:
        directory = cache_directory()
        found = kept_moments(view, tokenizer, source, layers, directory, max_tokens=count)
    else:
        found = second_moments(view, tokenizer, source, layers, max_tokens=count)
    first = next(iter(found.values()))
    note = describe_file(first) if isinstance(first, Path) else first.describe()
    warn_of_few(note["tokens"], size, source)
    return Prior(note, found)


def ridge_for(source: Source) -> float:
    """Give the ridge of a method that writes a fact along one direction, for a source of C.

    Over the few tokens of the model's own samples it is `OWN_RIDGE`, else `RIDGE`; what that buys
    stands in docs/statistics.md.
    """
    return OWN_RIDGE if isinstance(source, OwnSamples) else RIDGE


def metric_of(view: ModelView, prior: Prior, layer: int, ridge: float) -> Inverse:
    """C^-1 of one layer.

    Raises:
        NumericalFailure: C is singular.
    """
    device = view.device(layer)
    # Float64 is slow or missing on other accelerators.
    return prior.inverse(layer, ridge, device if device.type == "cuda" else torch.device("cpu"))
