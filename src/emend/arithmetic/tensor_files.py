"""Safetensors files as streams: tensors are read and written a part at a time.

The package safetensors maps a file into memory and writes files whole; what a process then holds
is whole shards. Here a tensor is read by its place in the file, and a file is written tensor by
tensor, since the sizes of all tensors are known before.

A file is 8 bytes with the length of the header (little endian), the header in JSON, and the
tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from emend.errors import BrokenFile, StoreFailure

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

CHUNK = 1 << 20
"""Numbers that are read at a time, few enough to stay in a processor's cache."""

_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Place:
    """A tensor in a file.

    Attributes:
        file: The file.
        dtype: Of its numbers.
        shape: Its shape.
        start: Its first byte in the file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    def chunks(self, size: int = CHUNK) -> Iterator[Tensor]:
        """Yield its numbers in order, at most ``size`` at a time, as flat tensors of its dtype.

        Raises:
            BrokenFile: The file ends before.
        """
        left = self.count
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            while left:
                count = min(size, left)
                yield self._filled(file, torch.empty(count, dtype=self.dtype))
                left -= count

    def read(self) -> Tensor:
        """Read the whole tensor.

        Raises:
            BrokenFile: The file ends before.
        """
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            return self._filled(file, torch.empty(self.shape, dtype=self.dtype))

    def _filled(self, file: Any, tensor: Tensor) -> Tensor:
        buffer = _bytes(tensor)
        at = 0
        while at < len(buffer):
            got = file.readinto(buffer[at:])
            if not got:
                raise BrokenFile(f"{self.file} is cut short: copy or save it again")
            at += got
        return tensor


def _bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def read_header(path: Path) -> dict[str, Place]:
    """Return the place of each tensor of a file, by its name.

    Raises:
        BrokenFile: It is no safetensors file, is cut short, or holds numbers of an unknown type.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        header = cast("dict[str, Any]", json.loads(text))
        header.pop("__metadata__", None)
        places = {name: _place(path, 8 + length, one) for name, one in header.items()}
        ends = [8 + length, *(one["data_offsets"][1] + 8 + length for one in header.values())]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise BrokenFile(
            f"{path} is cut short or not a safetensors file: save or download it again"
        ) from None
    if max(ends) > path.stat().st_size:
        raise BrokenFile(
            f"{path} is cut short ({path.stat().st_size} bytes, expected {max(ends)}): copy or "
            "save it again"
        )
    return places


def _place(path: Path, start: int, about: dict[str, Any]) -> Place:
    kind = about["dtype"]
    if kind not in DTYPES:
        raise BrokenFile(
            f"{path} holds numbers of type {kind}, expected one of {', '.join(DTYPES)}: save the "
            "model in bfloat16 or float32"
        )
    first, end = about["data_offsets"]
    place = Place(path, DTYPES[kind], tuple(map(int, about["shape"])), start + int(first))
    if end - first != place.count * place.dtype.itemsize:
        raise ValueError
    return place


class Planned(NamedTuple):
    """A tensor that will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Writer:
    """Appends the numbers of planned tensors to a file, in their order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, tensor: Tensor) -> None:
        """Append numbers: a whole tensor, or the next part of one."""
        self._file.write(_bytes(tensor.contiguous()))


def in_order(planned: Sequence[Planned]) -> list[Planned]:
    """Sort tensors as safetensors does, wide types first, so that each is aligned."""
    return sorted(planned, key=lambda one: (-one.dtype.itemsize, one.name))


@contextmanager
def written(path: Path, planned: Sequence[Planned]) -> Generator[Writer, None, None]:
    """Write a safetensors file tensor by tensor.

    Args:
        path: The file.
        planned: Its tensors, in the order in which they will be written.

    Yields:
        What to write the numbers with.

    Raises:
        StoreFailure: The disk is full, or refuses for another reason.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for one in planned:
        start, end = end, end + prod(one.shape) * one.dtype.itemsize
        about = {"dtype": NAMES[one.dtype], "shape": list(one.shape), "data_offsets": [start, end]}
        header[one.name] = about
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb", buffering=0) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            yield Writer(cast("BinaryIO", _Whole(file)))
            assert os.fstat(file.fileno()).st_size == 8 + len(text) + end
    except OSError as error:
        raise StoreFailure(
            f"cannot write {path.name} ({error.strerror or error}): free some room, or choose "
            "another path"
        ) from error


class _Whole:
    """A raw file that writes all that it is given, also where the system takes a part of it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: memoryview) -> int:
        size = len(data)
        while len(data):
            data = data[self._file.write(data) :]
        return size
