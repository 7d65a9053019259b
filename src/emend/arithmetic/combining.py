"""A formula of vectors over all tensors of a base: a checkpoint, a dense vector, or a patch.

Tensors are taken one at a time, so that memory holds one tensor of each vector; the result is
written in the shards of the base, whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from emend import _identity
from emend._io import files_listed, whole_directory, write_json
from emend._progress import progress
from emend._tensors import digests_of
from emend._validate import choice_fault, refuse
from emend._version import __version__
from emend.arithmetic.checkpoints import (
    Checkpoint,
    hashed,
    identity,
    open_checkpoint,
    skeleton,
)
from emend.arithmetic.dense import (
    STEM,
    refuse_target,
    shards_of,
    vector_directory,
    write_shards,
)
from emend.arithmetic.formula import parse
from emend.arithmetic.merging import Merging, merged
from emend.arithmetic.sources import (
    DenseSource,
    PatchSource,
    Source,
    check_same_base,
    open_source,
)
from emend.arithmetic.tensor_files import Planned
from emend.arithmetic.vectors import Compressed, linear_weights, save_compressed
from emend.errors import InvalidInput, NumericalFailure
from emend.models.placing import at_least_float32
from emend.patches import MERGE_CARD, WeightPatch, added, describe_base

Output = Literal["checkpoint", "vector", "patch"]
OUTPUTS = get_args(Output)
METHOD = "combine"

COPIED = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*", "*.py")
"""What a checkpoint has with its weights: configuration, tokenizer, licence, code."""

_NOT_COPIED = ("*.index.json", "emend_*.json", "card.json", "training_config.json")


Aside = tuple[Path, dict[str, Any]]
"""A directory that is being written, and its card."""


@dataclass(frozen=True)
class Combined:
    """The result of a formula.

    Attributes:
        path: Where it is.
        output: One of `OUTPUTS`.
        weights: The weight of each vector.
        tensors: How many tensors were changed.
        norm: Norm of the merged vector.
        error: Of a compressed patch, relative to the merged vector; 0 otherwise.
        left_out: Names of tensors that the merged vector changes and a patch cannot.
    """

    path: Path
    output: Output
    weights: Mapping[str, float]
    tensors: int
    norm: float
    error: float = 0.0
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        weights = dict(self.weights)
        return {**vars(self), "path": str(self.path), "weights": weights}


@dataclass(frozen=True)
class Merge:
    """What is merged into a base, tensor by tensor.

    Attributes:
        base: The base.
        sources: The vectors by name.
        weights: Their weights, in the same order.
        settings: The method.
    """

    base: Checkpoint
    sources: Mapping[str, Source]
    weights: Sequence[float]
    settings: Merging

    def delta(self, name: str) -> Tensor | None:
        """Return the merged delta of one tensor; None where no vector changes it.

        A vector that does not change the tensor takes part with zeros, as its adapter states.
        """
        if not any(name in one.names for one in self.sources.values()):
            return None
        place = self.base.places[name]
        wide = at_least_float32(place.dtype)
        deltas = [
            one.delta(name).to(wide) if name in one.names else torch.zeros(place.shape, dtype=wide)
            for one in self.sources.values()
        ]
        places = [f"{vector} {name}" for vector in self.sources]
        return merged(deltas, self.weights, self.settings, places)


def combine(
    formula: str,
    base: str | Path,
    vectors: Mapping[str, str | Path],
    output_path: str | Path,
    *,
    settings: Merging | None = None,
    output: Output = "checkpoint",
    rank: int | None = None,
    tolerance: float | None = None,
    accept_license: bool = False,
) -> Combined:
    """Merge vectors into a base by a formula, and write the result.

    Args:
        formula: Such as "0.4*a + 0.3*b - c" or "c + (b - a)"; see `parse`.
        base: The base, as `vector` takes it.
        vectors: The paths of the vectors by their names in the formula: dense vectors, patches,
            PEFT folders or GGUF adapters.
        output_path: A directory that is new, empty, or holds such a result to be replaced.
        settings: The method; by default the sum.
        output: "checkpoint" (base and vector, with configuration and tokenizer), "vector" (dense)
            or "patch".
        rank: Of a patch: the largest rank of a layer. None is for a sum of patches, which is
            exact, or for the smallest lossless rank.
        tolerance: Of a patch: the largest relative error of a layer.
        accept_license: The caller accepts the terms of a packaged model that has some.

    Raises:
        InvalidInput: The formula cannot be read, or a vector is for another base.
        UnknownName: The formula names a vector that is not given.
        NumericalFailure: A number is NaN, infinite, or beyond the range of the base's dtype.
        EmendError: A file is missing or broken.
    """
    refuse("output", choice_fault(output, OUTPUTS))
    if output != "patch" and (rank is not None or tolerance is not None):
        raise InvalidInput("rank and tolerance are of output='patch' alone, expected them with it")
    weights = parse(formula, vectors)
    settings = settings or Merging()
    checkpoint = open_checkpoint(base, accept_license=accept_license)
    sources = {name: open_source(vectors[name], checkpoint) for name in weights}
    merge = Merge(checkpoint, sources, [*weights.values()], settings)
    made_of = {
        "formula": formula,
        "vectors": {name: str(vectors[name]) for name in weights},
        "merging": vars(settings),
    }
    target = Path(output_path)
    if output == "checkpoint":
        tensors, norm = write_checkpoint(merge, target, made_of)
        return Combined(target, output, weights, tensors, norm)
    if output == "vector":
        tensors, norm = _write_vector(merge, target, made_of)
        return Combined(target, output, weights, tensors, norm)
    return _write_patch(merge, weights, target, made_of, rank, tolerance)


def write_checkpoint(
    merge: Merge, target: Path, made_of: Mapping[str, Any], dtype: torch.dtype | None = None
) -> tuple[int, float]:
    """Write the base with the merged vector as a checkpoint; how many tensors changed, the norm.

    Args:
        merge: What is merged.
        target: Where to write.
        made_of: What the card records.
        dtype: Of the floating-point tensors; None for the base's own.

    Raises:
        NumericalFailure: A number is beyond the range of the dtype.
    """
    refuse_target(target, MERGE_CARD)
    base = merge.base
    floats = set(base.floats)
    planned = {
        name: Planned(name, (dtype if name in floats else None) or place.dtype, place.shape)
        for name, place in base.places.items()
    }
    squares, changed, digests = 0.0, 0, {}
    with checkpoint_directory(base, target) as (aside, card):
        for one, writer in write_shards(aside, "model", shards_of(base, "model", planned)):
            tensor = base.places[one.name].read()
            digests[one.name] = digests_of(tensor)
            delta = merge.delta(one.name) if one.name in floats else None
            if delta is not None:
                squares += float(torch.linalg.vector_norm(delta.double())) ** 2
                changed += 1
                tensor = tensor.to(delta.dtype) + delta
            tensor = tensor.to(one.dtype)
            if one.name in floats:
                check_range(one.name, tensor)
            writer.write(tensor)
        found = identity(base, digests)
        check_bases(merge, found)
        card |= {"base": found, "method": METHOD, **made_of, "norm": squares**0.5}
    return changed, squares**0.5


@contextmanager
def checkpoint_directory(
    base: Checkpoint, target: Path
) -> Generator[tuple[Path, dict[str, Any]], None, None]:
    """Write a checkpoint whole or not at all: the block writes the weights and fills the card."""
    card: dict[str, Any] = {"format": "emend-merged", "emend_version": __version__, "edits": []}
    with whole_directory(target, files_listed(target, MERGE_CARD), MERGE_CARD) as aside:
        yield aside, card
        for path in _copied(base.directory):
            shutil.copy(path, aside / path.name)
        names = sorted({path.name for path in aside.iterdir()} | {MERGE_CARD})
        write_json(aside / MERGE_CARD, {**card, "files": names})


def _copied(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        wanted = any(path.match(pattern) for pattern in COPIED)
        if path.is_file() and wanted and not any(path.match(one) for one in _NOT_COPIED):
            yield path


def check_range(name: str, tensor: Tensor) -> None:
    """Refuse merged numbers that are not finite.

    Raises:
        NumericalFailure: With the tensor's name.
    """
    if not bool(tensor.isfinite().all()):
        raise NumericalFailure(
            f"{name} merged holds NaN or numbers beyond the range of {tensor.dtype}, expected "
            "finite numbers: check the base, or lower the weights of the formula"
        )


def check_bases(merge: Merge, base: Mapping[str, Any]) -> None:
    """Refuse vectors that were made for other weights.

    Raises:
        InvalidInput: With the name of the first.
    """
    for name, source in merge.sources.items():
        if isinstance(source, DenseSource):
            check_same_base(f"vector {name}", source.vector.base, base)
        elif isinstance(source, PatchSource):
            check_same_base(f"vector {name}", source.patch.base, base)


def _write_vector(merge: Merge, target: Path, made_of: Mapping[str, Any]) -> tuple[int, float]:
    refuse_target(target)
    base, found = merge.base, _identity_of(merge)
    names = [name for name in base.floats if any(name in s.names for s in merge.sources.values())]
    wide = {name: at_least_float32(base.places[name].dtype) for name in names}
    planned = {name: Planned(name, wide[name], base.places[name].shape) for name in names}
    squares, digests = 0.0, []
    about: dict[str, Any] = {}
    with vector_directory(target, about) as aside:
        for one, writer in write_shards(aside, STEM, shards_of(base, STEM, planned)):
            delta = merge.delta(one.name)
            assert delta is not None
            squares += float(torch.linalg.vector_norm(delta.double())) ** 2
            digests.append([one.name, digests_of(delta).exact])
            writer.write(delta)
        about |= {
            "base": found,
            "made_of": dict(made_of),
            "digest": _identity.digest([found["hash"], sorted(digests)]),
            "norm": squares**0.5,
            "dtype": "float32",
            "left_out": [],
        }
    return len(names), squares**0.5


def _identity_of(merge: Merge) -> dict[str, Any]:
    """Read and hash the base, and check that the vectors are for it."""
    found = identity(merge.base, hashed(merge.base, merge.base.places))
    check_bases(merge, found)
    return found


def _write_patch(
    merge: Merge,
    weights: Mapping[str, float],
    target: Path,
    made_of: Mapping[str, Any],
    rank: int | None,
    tolerance: float | None,
) -> Combined:
    hash_ = _identity_of(merge)["hash"]
    patches = [one.patch for one in merge.sources.values() if isinstance(one, PatchSource)]
    if len(patches) == len(merge.sources) and not merge.settings.drops:
        return _write_sum(patches, merge, weights, target, rank, tolerance)
    found, squares = Compressed(rank, tolerance), 0.0
    model = skeleton(merge.base)
    linear = linear_weights(model)
    for name in progress(merge.base.floats, "compressing"):
        delta = merge.delta(name)
        if delta is not None:
            squares += float(torch.linalg.vector_norm(delta.double())) ** 2
            found.add(name, delta, linear)
    norm = squares**0.5
    base = describe_base(model, weights=hash_)
    made = save_compressed(found, base, target, METHOD, made_of, norm, found.left_out)
    left_out = tuple(found.left_out)
    return Combined(target, "patch", weights, made.tensors, norm, made.error, left_out)


def _write_sum(
    patches: Sequence[WeightPatch],
    merge: Merge,
    weights: Mapping[str, float],
    target: Path,
    rank: int | None,
    tolerance: float | None,
) -> Combined:
    """Write a sum of patches by their own algebra, which is exact until it is compressed."""
    factors = [merge.settings.scale * weight for weight in weights.values()]
    if merge.settings.normalizes:
        whole = sum(map(abs, weights.values()))
        factors = [one / whole for one in factors]
    total = factors[0] * patches[0]
    for factor, patch in zip(factors[1:], patches[1:], strict=True):
        total = added(total, factor * patch)
    small = total
    if rank is not None or tolerance is not None:
        small = total.compress(rank, tolerance)
    small.save_pretrained(target)
    norm = total.norm
    lost = sum(
        (small.compression.get(name, 0.0) * factor.norm()) ** 2
        for name, factor in total.factors.items()
    )
    error = lost**0.5 / norm if norm else 0.0
    return Combined(target, "patch", weights, len(small.factors), norm, error)
