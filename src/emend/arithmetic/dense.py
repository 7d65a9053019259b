"""Dense vectors: a number for every weight of a base model, in shards of safetensors on the disk.

vector.json                         the base's identity, what the vector was made of, its norm
vector.safetensors                  one file, or
vector-00001-of-00008.safetensors   shards, split as the base is, and
vector.safetensors.index.json       their index
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend._brief import brief
from emend._io import files_listed, refuse_foreign, whole_directory, write_json
from emend._progress import progress
from emend._version import __version__
from emend.arithmetic.checkpoints import INDEX, Checkpoint, open_tensors
from emend.arithmetic.tensor_files import Place, Planned, Writer, in_order, written
from emend.errors import BrokenFile, InvalidInput, MissingFile, NumericalFailure
from emend.models import for_everyone
from emend.models.placing import at_least_float32
from emend.patches import WeightPatch, check_base

CARD = "vector.json"
STEM = "vector"
FORMAT_VERSION = 1


@brief
@dataclass(frozen=True, eq=False)
class Vector:
    """A dense vector on the disk.

    Attributes:
        directory: Where it is.
        base: The identity of its base, as `patches.describe_base` has it.
        digest: Of all that it was made of: equal vectors have equal digests.
        norm: Its Euclidean norm over all tensors.
        made_of: What it was made of, JSON-able.
        places: Where each tensor is.
    """

    directory: Path
    base: Mapping[str, Any]
    digest: str
    norm: float
    made_of: Mapping[str, Any]
    places: Mapping[str, Place]

    def delta(self, name: str) -> Tensor:
        """Read the part of one tensor, in float32 (float64 where the base is) and its shape."""
        tensor = self.places[name].read()
        return tensor.to(at_least_float32(tensor.dtype))


def is_vector(path: str | Path) -> bool:
    """Return whether a directory holds a dense vector."""
    return (Path(path) / CARD).is_file()


def load_vector(path: str | Path) -> Vector:
    """Open a dense vector; its tensors are read when they are needed.

    Raises:
        MissingFile: There is no vector, or a part of it is missing.
        BrokenFile: A part of it is cut short or cannot be read.
        InvalidInput: A newer format.
    """
    directory = Path(path)
    card = directory / CARD
    if not card.is_file():
        raise MissingFile(
            f"{directory} holds no {CARD}, expected a vector: `emend vector` makes it"
        )
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
        if found["format"] != "emend-vector":
            raise ValueError
        version = int(found["format_version"])
        base, digest, norm = found["base"], str(found["digest"]), float(found["norm"])
        made_of = found["made_of"]
    except (ValueError, KeyError, TypeError):
        raise BrokenFile(f"{card} is not the card of a vector: make the vector again") from None
    if version > FORMAT_VERSION:
        raise InvalidInput(
            f"{card} has format version {version}, expected at most {FORMAT_VERSION}: read it with "
            "a newer emend"
        )
    places, _ = open_tensors(directory, STEM)
    return Vector(directory, base, digest, norm, made_of, places)


@dataclass(frozen=True)
class Shard:
    """A file to be written, and the tensors in it."""

    file: str
    tensors: list[Planned]


def shards_of(checkpoint: Checkpoint, stem: str, planned: Mapping[str, Planned]) -> list[Shard]:
    """Split planned tensors into files as the checkpoint is split."""
    kept = [[name for name in names if name in planned] for names in checkpoint.shards]
    kept = [names for names in kept if names]
    count = len(kept)
    return [
        Shard(
            f"{stem}.safetensors"
            if count == 1
            else f"{stem}-{number:05}-of-{count:05}.safetensors",
            in_order([planned[name] for name in names]),
        )
        for number, names in enumerate(kept, 1)
    ]


def write_shards(
    directory: Path, stem: str, shards: Sequence[Shard]
) -> Iterator[tuple[Planned, Writer]]:
    """Open the shards one after another, and yield each tensor to be written, with its writer.

    The index is written when all are.
    """
    total = sum(len(shard.tensors) for shard in shards)
    tensors = _each(directory, shards)
    yield from progress(tensors, "writing tensors", total)
    if len(shards) > 1:
        listed = {one.name: shard.file for shard in shards for one in shard.tensors}
        size = sum(
            torch.Size(one.shape).numel() * one.dtype.itemsize
            for shard in shards
            for one in shard.tensors
        )
        write_json(
            directory / f"{stem}{INDEX}",
            {"metadata": {"total_size": size}, "weight_map": dict(sorted(listed.items()))},
        )


def _each(directory: Path, shards: Sequence[Shard]) -> Iterator[tuple[Planned, Writer]]:
    for shard in shards:
        with written(directory / shard.file, shard.tensors) as writer:
            for one in shard.tensors:
                yield one, writer


@contextmanager
def vector_directory(target: Path, about: dict[str, Any]) -> Generator[Path, None, None]:
    """Write a vector whole or not at all; ``about`` is its card, which the block may fill.

    Raises:
        InvalidInput: The directory holds something else.
    """
    with whole_directory(target, files_listed(target, CARD), CARD) as aside:
        yield aside
        card = {"format": "emend-vector", "format_version": FORMAT_VERSION}
        names = sorted({path.name for path in aside.iterdir()} | {CARD})
        write_json(aside / CARD, {**card, "emend_version": __version__, **about, "files": names})


def refuse_target(target: Path, card: str = CARD) -> None:
    """Refuse a directory that is not ours to replace, before the work.

    Raises:
        InvalidInput: It holds something else.
    """
    refuse_foreign(target, files_listed(target, card), card)


def check_finite(name: str, of: str, part: Tensor) -> None:
    """Refuse numbers that are not finite.

    Raises:
        NumericalFailure: With the tensor's name.
    """
    if not bool(part.isfinite().all()):
        raise NumericalFailure(
            f"{name} of {of} holds NaN or infinity, expected finite numbers: train or download the "
            "model again"
        )


@contextmanager
def scaled(
    model: nn.Module, vector: WeightPatch | Vector, scale: float
) -> Generator[None, None, None]:
    """Have a model act with a scaled vector inside the block.

    A patch is attached. A dense vector is written into the weights, whose own numbers are put back
    afterwards, bit for bit: until then they are in memory twice.

    Raises:
        InvalidInput: The vector is for another model, or a patch is attached to the model.
    """
    if not scale:
        yield
    elif isinstance(vector, WeightPatch):
        with (scale * vector).applied(model):
            yield
    else:
        check_base(model, vector.base)
        if for_everyone(model):
            raise InvalidInput(
                "a patch is attached to the model, expected the bare base: detach it"
            )
        with _written_into(model, vector, scale):
            yield


@contextmanager
def _written_into(model: nn.Module, vector: Vector, scale: float) -> Generator[None, None, None]:
    weights = dict(_named(model, vector.places))
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                wide = weight.to(at_least_float32(weight.dtype))
                weight.copy_(wide + scale * vector.delta(name).to(wide))
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def _named(model: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    there = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name in names:
        if name not in there:
            raise InvalidInput(
                f"{type(model).__name__} has no tensor {name} that the vector changes, expected "
                "the vector's base: load that model"
            )
        yield name, there[name]
