"""Key covariances C of several layers, loaded one at a time, with their factors and null spaces.

C is computed in `editing/collecting.py`, where it is not known.

Null space: AlphaEdit, Fang et al. 2025, arXiv 2410.02355: P = U U^T, with U the eigenvectors of
C = E[k k^T] whose eigenvalues are small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend.editing import tensor_cache
from emend.editing.collecting import (
    TOKENS_PER_KEY,
    Covariance,
    cache_directory,
    cached_covariance,
    describe_file,
    read_covariance,
    warn_of_few,
)
from emend.editing.ridge import Inverse, Projector, inverse
from emend.editing.texts import Source
from emend.errors import InvalidInput
from emend.models import ModelView


@dataclass(frozen=True)
class KeyCovariance:
    """The key covariances of some layers, counted from 0.

    Attributes:
        note: What a patch records of them, JSON-able.
    """

    note: dict[str, Any]
    _found: Mapping[int, Path | Covariance] = field(default_factory=dict[int, "Path | Covariance"])

    @property
    def on_disk(self) -> tuple[int, ...]:
        """The layers whose covariance, and what is derived from it, is cached on disk."""
        return tuple(layer for layer, found in self._found.items() if isinstance(found, Path))

    def matrix(self, layer: int) -> Tensor:
        """Return one layer's (intermediate_size, intermediate_size) C, read from disk.

        So one at a time is in memory.
        """
        found = self._found[layer]
        return (read_covariance(found) if isinstance(found, Path) else found).matrix

    def inverse(self, layer: int, ridge: float, device: torch.device | str = "cpu") -> Inverse:
        """Return C^-1 of one layer by its Cholesky factor, which is cached next to C.

        Raises:
            NumericalFailure: C is singular.
        """
        path = self._derived(layer, "cholesky factor", ridge=ridge)
        if path and (found := tensor_cache.read(path, "upper")):
            return Inverse(found[0].to(device).mT)
        metric = inverse(self.matrix(layer).to(device), ridge)
        if path:
            tensor_cache.write(path, {"upper": metric.factor.mT}, {"ridge": ridge})
        return metric

    def spectrum(self, layer: int) -> Spectrum:
        """Return the eigendecomposition of one layer's C, which is cached next to C."""
        path = self._derived(layer, "spectrum")
        if path and (found := tensor_cache.read(path, "values", "vectors")):
            return Spectrum(*found)
        spectrum = spectrum_of(self.matrix(layer))
        if path:
            tensor_cache.write(path, {"values": spectrum.values, "vectors": spectrum.vectors}, {})
        return spectrum

    def _derived(self, layer: int, algorithm: str, **settings: Any) -> Path | None:
        """Return the file for what is derived from a layer's C; None if C is not on disk."""
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
        source: The texts (see `texts_for`). Of a corpus, 20 tokens are read for each dimension of
            a key; of given texts, all.

    Raises:
        InvalidInput: The texts cannot be read.
        NotEnoughMemory: The sums do not fit.
    """
    size = view.intermediate_size(layers[0])
    count = TOKENS_PER_KEY * size if source.packed else None
    found = cached_covariance(view, tokenizer, source, layers, cache_directory(), max_tokens=count)
    first = next(iter(found.values()))
    note = describe_file(first) if isinstance(first, Path) else first.describe()
    warn_of_few(note["tokens"], size, source)
    return KeyCovariance(note, found)


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of a key covariance C.

    Attributes:
        values: (inner,) float64, ascending and not negative.
        vectors: (intermediate_size, intermediate_size) float32, as columns.
    """

    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class NullSpace:
    """The directions of one layer's keys that other tokens hardly use.

    Attributes:
        projector: The projection P.
        energy: tr(P C): mean square length of a token's key after the projection.
        rank: Number of dimensions.
    """

    projector: Projector
    energy: float
    rank: int


def spectrum_of(covariance: Tensor) -> Spectrum:
    """Decompose a key covariance (intermediate_size, intermediate_size), in float64."""
    # In place, with contiguous columns as LAPACK expects; see `ridge.inverse`.
    vectors = covariance.to(torch.float64, copy=True).mT
    values = vectors.new_empty(len(vectors))
    torch.linalg.eigh(vectors, out=(values, vectors))
    return Spectrum(values.clamp(min=0), vectors.float())


def null_space(spectrum: Spectrum, *, quantile: float) -> NullSpace:
    """Return the directions with the smallest eigenvalues of a covariance.

    Args:
        spectrum: Of the covariance C.
        quantile: Part of the trace that the smallest eigenvalues taken may hold at most.

    Raises:
        InvalidInput: No direction is free, or all are.
    """
    values = spectrum.values
    rank = int((values.cumsum(0) <= quantile * values.sum()).sum())
    if rank == 0 or rank == len(values):
        many, remedy = ("no", "raise") if rank == 0 else ("every", "lower")
        raise InvalidInput(
            f"{many} one of {len(values)} directions of the keys is free at quantile {quantile:g} "
            f"of the trace, expected some: {remedy} the quantile"
        )
    basis = spectrum.vectors[:, :rank].double()
    return NullSpace(Projector(basis), float(values[:rank].sum()), rank)
