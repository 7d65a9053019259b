"""Where the deltas of a merge come from: dense vectors, patches and adapters, or checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from emend.arithmetic.checkpoints import Checkpoint, check_alike, skeleton
from emend.arithmetic.dense import Vector, check_finite, is_vector, load_vector
from emend.arithmetic.vectors import linear_weights
from emend.errors import InvalidInput
from emend.models import load
from emend.models.placing import at_least_float32
from emend.patches import WeightPatch, base_difference, is_gguf, load_patch


class Source(Protocol):
    """Gives the delta of each tensor of a base."""

    @property
    def names(self) -> Collection[str]:
        """Names of the tensors that it changes."""
        ...

    def delta(self, name: str) -> Tensor:
        """Return the delta of a tensor that it changes, in float32 or float64."""
        ...


@dataclass(frozen=True)
class DenseSource:
    """A dense vector."""

    vector: Vector

    @property
    def names(self) -> Collection[str]:
        """See `Source`."""
        return self.vector.places

    def delta(self, name: str) -> Tensor:
        """See `Source`; numbers that are not finite are refused."""
        found = self.vector.delta(name)
        check_finite(name, str(self.vector.directory), found)
        return found


@dataclass(frozen=True)
class PatchSource:
    """A patch or an adapter, by the tensors of the base."""

    patch: WeightPatch
    modules: Mapping[str, tuple[str, bool]]

    @property
    def names(self) -> Collection[str]:
        """See `Source`."""
        return self.modules

    def delta(self, name: str) -> Tensor:
        """See `Source`."""
        module, transposed = self.modules[name]
        found = self.patch.factors[module].dense()  # (out, in)
        return found.T.contiguous() if transposed else found


@dataclass(frozen=True)
class CheckpointSource:
    """A tuned checkpoint minus its base."""

    base: Checkpoint
    tuned: Checkpoint

    def __post_init__(self) -> None:
        check_alike(self.base, self.tuned)

    @property
    def names(self) -> Collection[str]:
        """See `Source`."""
        return self.base.places

    def delta(self, name: str) -> Tensor:
        """See `Source`; numbers that are not finite are refused."""
        old, new = (one.places[name].read() for one in (self.base, self.tuned))
        check_finite(name, self.tuned.name, new)
        wide = at_least_float32(old.dtype)
        return new.to(wide).sub_(old)


def open_source(path: str | Path, base: Checkpoint) -> Source:
    """Open a vector by its path: a dense one, a patch, a PEFT folder, or a GGUF adapter.

    Raises:
        InvalidInput: It is for another base, or changes what the base has not.
        EmendError: It cannot be read.
    """
    if is_vector(path):
        vector = load_vector(path)
        _check_fits(str(path), vector, base)
        return DenseSource(vector)
    model: Any = load(base.name)[0] if is_gguf(Path(path)) else None
    patch = load_patch(path, model)
    if not isinstance(patch, WeightPatch):
        raise InvalidInput(
            f"{path} changes no weights, expected a vector, a patch of weights or a LoRA adapter: "
            "give another"
        )
    return PatchSource(patch, _modules(str(path), patch, base))


def check_same_base(path: str, vector: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Refuse a vector of another base, by the identities of both.

    Raises:
        InvalidInput: Their weights have another hash, or the configuration differs.
    """
    difference = base_difference(vector, base)
    if difference is not None:
        raise InvalidInput(
            f"{path} is for {vector.get('name') or 'a model'} with {difference[0]}, but the base "
            f"has {difference[1]}: give the base that the vector was made for"
        )


def _check_fits(path: str, vector: Vector, base: Checkpoint) -> None:
    for name, place in vector.places.items():
        there = base.places.get(name)
        if there is None or there.shape != place.shape:
            found = "not in" if there is None else f"of shape {list(there.shape)} in"
            raise InvalidInput(
                f"{name}, of shape {list(place.shape)} in {path}, is {found} {base.name}, expected "
                "the base of the vector: give that model"
            )


def _modules(path: str, patch: WeightPatch, base: Checkpoint) -> dict[str, tuple[str, bool]]:
    """Return each changed module by the name of its weight, and whether that is (in, out)."""
    linear = linear_weights(skeleton(base))
    found = {name: one for name, one in linear.items() if one[0] in patch.factors}
    missing = set(patch.factors) - {module for module, _ in found.values()}
    if missing:
        raise InvalidInput(
            f"{path} changes {min(missing)}, which is no linear layer with a weight of its own in "
            f"{base.name}, expected the base of the patch: give that model"
        )
    for name, (module, transposed) in found.items():
        shape = base.places[name].shape
        if tuple(shape[::-1] if transposed else shape) != patch.factors[module].shape:
            raise InvalidInput(
                f"{path} changes {module} by a matrix of {patch.factors[module].shape}, but "
                f"{base.name} has {list(shape)}: give the base of the patch"
            )
    return found
