"""Vectors from two checkpoints, tuned minus base, or from an adapter.

Ilharco et al. 2023, arXiv 2212.04089:  tau = theta_tuned - theta_base, over all floating-point
tensors with equal names. Both checkpoints are read a part at a time, so that memory does not depend
on their size. The vector is dense, or a patch of a given rank with its error stated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emend import _identity
from emend._progress import progress
from emend._tensors import Digester, Digests
from emend._validate import choice_fault, refuse
from emend.arithmetic.checkpoints import (
    Checkpoint,
    check_alike,
    hashed,
    identity,
    open_checkpoint,
    skeleton,
)
from emend.arithmetic.dense import (
    STEM,
    check_finite,
    refuse_target,
    shards_of,
    vector_directory,
    write_shards,
)
from emend.arithmetic.tensor_files import Planned
from emend.errors import InvalidInput
from emend.models import load
from emend.models.placing import at_least_float32
from emend.models.structure import projection_shape
from emend.models.wrapping import plain_modules
from emend.patches import Dense, Factor, WeightPatch, compress, describe_base, load_patch

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
METHOD = "vector"


@dataclass(frozen=True)
class Made:
    """A vector that was written.

    Attributes:
        path: Where it is.
        kind: "dense" or "patch".
        base: The identity of its base.
        tensors: How many tensors it changes.
        norm: Its Euclidean norm over all tensors.
        error: Of a patch, ``||tau - patch|| / ||tau||`` over all tensors; 0 where it is exact.
        left_out: Names of tensors that differ and are not in it: of other numbers than
            floating-point ones, or of a patch those of no linear layer.
    """

    path: Path
    kind: Literal["dense", "patch"]
    base: Mapping[str, Any]
    tensors: int
    norm: float
    error: float = 0.0
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {**vars(self), "path": str(self.path), "left_out": list(self.left_out)}


def vector(
    base: str | Path,
    tuned: str | Path | None = None,
    output_path: str | Path = "vector",
    *,
    adapter: str | Path | None = None,
    rank: int | None = None,
    tolerance: float | None = None,
    dtype: Dtype = "float32",
    accept_license: bool = False,
) -> Made:
    """Take the vector from a base to a tuned checkpoint, or of a LoRA adapter, and write it.

    Args:
        base: The base: a directory, a GGUF file, or a name that `emend.load` takes; not one on the
            hub.
        tuned: The tuned checkpoint, likewise.
        output_path: A directory that is new, empty, or holds such a vector to be replaced.
        adapter: Instead of ``tuned``, a PEFT folder, a GGUF adapter or a patch for the base.
        rank: Write a patch of at most this rank for each linear layer; None for a dense vector of
            two checkpoints, and for an adapter as it is.
        tolerance: As ``rank``, by the largest relative error of a layer; see
            `WeightPatch.compress`.
        dtype: Of a dense vector. The difference of two numbers in bfloat16 is exact in float32
            only.
        accept_license: The caller accepts the terms of a packaged model that has some.

    Raises:
        InvalidInput: The checkpoints differ in names, shapes or vocabulary, or are equal.
        NumericalFailure: A tensor holds NaN or infinity.
        MissingFile: A checkpoint or a part of it is not there.
        BrokenFile: A file is cut short or not of its format.
    """
    target = Path(output_path)
    refuse("dtype", choice_fault(dtype, DTYPES))
    if (tuned is None) == (adapter is None):
        raise InvalidInput("expected one of tuned and adapter: what the vector leads to")
    if adapter is not None:
        return _of_adapter(str(base), adapter, target, rank, tolerance, accept_license)
    pair = (
        open_checkpoint(base, accept_license=accept_license),
        open_checkpoint(str(tuned), accept_license=accept_license),
    )
    check_alike(*pair)
    if rank is None and tolerance is None:
        refuse_target(target)
        return _dense(*pair, target, DTYPES[dtype])
    return _patch(*pair, target, rank, tolerance)


def _dense(base: Checkpoint, tuned: Checkpoint, target: Path, dtype: torch.dtype) -> Made:
    planned = {name: Planned(name, dtype, base.places[name].shape) for name in base.floats}
    shards = shards_of(base, STEM, planned)
    reading = _Reading(base, tuned)
    about: dict[str, Any] = {}
    with vector_directory(target, about) as aside:
        for one, writer in write_shards(aside, STEM, shards):
            for part in reading.differences(one.name):
                writer.write(part.to(dtype))
        left_out = reading.finish()
        about |= {
            "base": identity(base, reading.digests[0]),
            "made_of": {"tuned": identity(tuned, reading.digests[1])},
            "digest": _identity.digest([reading.hashes(), str(dtype)]),
            "norm": reading.norm,
            "dtype": str(dtype).removeprefix("torch."),
            "left_out": list(left_out),
        }
    return Made(target, "dense", about["base"], len(planned), reading.norm, 0.0, left_out)


class _Reading:
    """Reads two checkpoints side by side: differences, digests of both, and the norm."""

    def __init__(self, base: Checkpoint, tuned: Checkpoint) -> None:
        self.pair = (base, tuned)
        self.digests: tuple[dict[str, Digests], dict[str, Digests]] = ({}, {})
        self._squares = 0.0

    @property
    def norm(self) -> float:
        """Of all differences so far."""
        return self._squares**0.5

    def differences(self, name: str) -> Iterator[Tensor]:
        """Yield tuned minus base of one tensor in flat parts, in float32 or float64.

        Raises:
            NumericalFailure: One of them holds NaN or infinity.
        """
        places = [one.places[name] for one in self.pair]
        digesters = [Digester(place.dtype, place.shape) for place in places]
        wide = at_least_float32(places[0].dtype)
        for old, new in zip(*(place.chunks() for place in places), strict=True):
            for digester, part in zip(digesters, (old, new), strict=True):
                digester.update(part)
            part = new.to(wide, copy=True).sub_(old)
            norm = float(torch.linalg.vector_norm(part))
            if not math.isfinite(norm):
                for one, found in zip(self.pair, (old, new), strict=True):
                    check_finite(name, one.name, found)
                check_finite(name, "the difference", part)
            self._squares += norm * norm
            yield part
        for digests, digester in zip(self.digests, digesters, strict=True):
            digests[name] = digester.digests()

    def whole(self, name: str) -> Tensor:
        """Return tuned minus base of one tensor."""
        parts = [*self.differences(name)]
        shape = self.pair[0].places[name].shape
        return torch.cat(parts).reshape(shape) if parts else torch.empty(shape)

    def finish(self) -> tuple[str, ...]:
        """Read the tensors of other numbers, and return the names of those that differ.

        Raises:
            InvalidInput: Nothing at all differs.
        """
        base, tuned = self.pair
        for digests, one in zip(self.digests, self.pair, strict=True):
            digests.update(hashed(one, one.others))
        if not self._squares:
            raise InvalidInput(
                f"{tuned.name} has the weights of {base.name}, expected a tuned model: check both"
            )
        old, new = self.digests
        return tuple(name for name in base.others if old[name] != new[name])

    def hashes(self) -> list[list[Any]]:
        """Return all digests, for a digest of the vector."""
        return [[name, one.exact] for part in self.digests for name, one in sorted(part.items())]


@dataclass
class Compressed:
    """Low-rank changes of linear layers, and the error of leaving the rest out.

    Attributes:
        rank: The largest rank; None for no limit.
        tolerance: The largest relative error of a layer; None for that of float32.
        factors: The changes by module.
        errors: Their relative errors.
        left_out: Tensors that differ and are no weight of a linear layer.
        lost: The sum of the squared errors.
    """

    rank: int | None
    tolerance: float | None
    factors: dict[str, Factor] = field(default_factory=lambda: {})
    errors: dict[str, float] = field(default_factory=lambda: {})
    left_out: list[str] = field(default_factory=lambda: [])
    lost: float = 0.0

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise InvalidInput(f"rank is {self.rank}, expected at least 1: raise it")
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise InvalidInput(
                f"tolerance is {self.tolerance}, expected a relative error from 0 to below 1"
            )

    def add(self, name: str, delta: Tensor, linear: Mapping[str, tuple[str, bool]]) -> None:
        """Take the change of one tensor.

        Raises:
            InvalidInput: The rank does not keep to the tolerance.
        """
        norm = float(torch.linalg.vector_norm(delta.double()))
        if not norm:
            return
        if name not in linear:
            self.left_out.append(name)
            self.lost += norm * norm
            return
        module, transposed = linear[name]
        small, error = compress(
            Dense(delta.T if transposed else delta), max(self.tolerance or 0.0, 1e-6), self.rank
        )
        if self.tolerance is not None and error > max(self.tolerance, 1e-6):
            raise InvalidInput(
                f"{module} in {small.rank} rows has a relative error of {error:.2g}, expected at "
                f"most tolerance={self.tolerance:g}: allow a higher rank or a larger tolerance"
            )
        self.factors[module], self.errors[module] = small, error
        self.lost += (error * norm) ** 2


def linear_weights(model: nn.Module) -> dict[str, tuple[str, bool]]:
    """Return the linear layers by the names of their weights, and whether these are (in, out).

    A head that is tied to the embedding is none: a patch would change the head alone.
    """
    network: Any = model
    embedding = network.get_input_embeddings().weight
    return {
        f"{name}.weight": (name, type(module).__name__ == "Conv1D")
        for name, module in plain_modules(model)
        if projection_shape(module) is not None and module.get_parameter("weight") is not embedding
    }


def _patch(
    base: Checkpoint, tuned: Checkpoint, target: Path, rank: int | None, tolerance: float | None
) -> Made:
    found, reading = Compressed(rank, tolerance), _Reading(base, tuned)
    model = skeleton(base)
    linear = linear_weights(model)
    for name in progress(base.floats, "compressing"):
        found.add(name, reading.whole(name), linear)
    left_out = (*reading.finish(), *found.left_out)
    description = describe_base(model, weights=identity(base, reading.digests[0])["hash"])
    config = {"tuned": tuned.name, "rank": rank, "tolerance": tolerance}
    return save_compressed(found, description, target, METHOD, config, reading.norm, left_out)


def save_compressed(
    found: Compressed,
    base: Mapping[str, Any],
    target: Path,
    method: str,
    config: Mapping[str, Any],
    norm: float,
    left_out: Sequence[str],
) -> Made:
    """Save compressed changes as a patch, and state the error over all tensors.

    Raises:
        InvalidInput: No linear layer differs.
    """
    if not found.factors:
        raise InvalidInput(
            f"no linear layer differs, but {', '.join(left_out[:3])} do, expected a change that a "
            "patch can hold: leave rank out, for a dense vector"
        )
    patch = WeightPatch(
        factors=found.factors,
        edits=(),
        method=method,
        config=config,
        base=base,
        compression=found.errors,
    )
    patch.save_pretrained(target)
    error = found.lost**0.5 / norm
    return Made(target, "patch", base, len(found.factors), norm, error, tuple(left_out))


def _of_adapter(
    base: str,
    adapter: str | Path,
    target: Path,
    rank: int | None,
    tolerance: float | None,
    accept_license: bool,
) -> Made:
    """Write an adapter as a patch, checked against the base."""
    model, _ = load(base, accept_license=accept_license)
    found = load_patch(adapter, model)
    if not isinstance(found, WeightPatch):
        raise InvalidInput(f"{adapter} changes no weights, expected a LoRA adapter: give another")
    small = found
    if rank is not None or tolerance is not None:
        small = found.compress(rank, tolerance)
    lost = sum(
        (small.compression.get(name, 0.0) * factor.norm()) ** 2
        for name, factor in found.factors.items()
    )
    small.save_pretrained(target)
    norm = found.norm
    error = lost**0.5 / norm if norm else 0.0
    return Made(target, "patch", small.base, len(small.factors), norm, error)
