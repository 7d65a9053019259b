"""Read the header of a GGUF file: what kind of file it is, before the long work of loading it.

Only single numbers and strings are kept and lists are passed over: the reader of the package
`gguf` makes an array of each of a vocabulary's strings, which takes ten seconds on 262,144 tokens.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from emend.errors import BrokenFile, InvalidInput

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_FORMATS = "B b H h I i f ? s a Q q d".split()  # by the number of the type; s: string, a: list
_STRING, _LIST = 8, 9


@dataclass(frozen=True)
class TensorPlace:
    """Where a GGUF file keeps one tensor.

    Attributes:
        shape: As numpy has it: (out, in) of a matrix.
        kind: The number of its type in `gguf.GGMLQuantizationType`.
        offset: In bytes, from the first byte of all tensors' data.
    """

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensors of a GGUF file.

    Attributes:
        version: Of the file format.
        entries: How many keys there are, lists included.
        values: The single numbers and strings by their keys.
        tensors: The tensors by name, in the order of the file.
        keys_at: The first byte of the keys and the one behind the last, in the file.
        data_at: The first byte of the tensors' data in the file.
    """

    version: int
    entries: int
    values: dict[str, Any]
    tensors: dict[str, TensorPlace]
    keys_at: tuple[int, int]
    data_at: int

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(place.shape) for place in self.tensors.values())

    @property
    def alignment(self) -> int:
        """Every tensor begins at a multiple of this many bytes."""
        return int(self.values.get("general.alignment", 32))

    @property
    def architecture(self) -> str:
        """The architecture as llama.cpp names it."""
        return str(self.values.get("general.architecture", ""))


def read_header(path: Path, *, whole: bool = True) -> Header:
    """Read the header of a file that should be a GGUF model.

    Args:
        path: The file.
        whole: Refuse what holds no whole model.

    Raises:
        BrokenFile: It is no GGUF file, of a version that is not read, or cut short.
        InvalidInput: It is a GGUF file but no whole model: an adapter, or one part of several.
    """
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise BrokenFile(f"{path} does not begin with GGUF: it is no GGUF file; get it again")
        try:
            header = _parse(file, path)
        except (struct.error, ArithmeticError, MemoryError, IndexError, UnicodeDecodeError):
            raise BrokenFile(
                f"{path} ends within its header, or its header is broken: get it again"
            ) from None
    if whole:
        _refuse_partial(header, path)
    return header


def _parse(file: BinaryIO, path: Path) -> Header:
    version, tensors, entries = _unpack(file, "<IQQ")
    if version not in _VERSIONS:
        raise BrokenFile(
            f"{path} is of GGUF version {version}, expected 2 or 3: convert the model again"
        )
    values: dict[str, Any] = {}
    begin = file.tell()
    for _ in range(entries):
        key = _string(file)
        value = _value(file, _unpack(file, "<I")[0])
        if value is not None:
            values[key] = value
    end = file.tell()
    places = dict(_place(file) for _ in range(tensors))
    header = Header(version, entries, values, places, (begin, end), file.tell())
    return replace(header, data_at=aligned(header.data_at, header.alignment))


def aligned(position: int, alignment: int) -> int:
    """Give the first position from this one on that is a multiple of the alignment."""
    return -(-position // alignment) * alignment


def _place(file: BinaryIO) -> tuple[str, TensorPlace]:
    name = _string(file)
    (dimensions,) = _unpack(file, "<I")
    shape = _unpack(file, f"<{dimensions}Q")[::-1]  # the file has the fastest axis first
    kind, offset = _unpack(file, "<IQ")
    return name, TensorPlace(shape, kind, offset)


def _value(file: BinaryIO, kind: int) -> Any:
    """One value; None for a list, which is passed over."""
    if kind == _STRING:
        return _string(file)
    if kind != _LIST:
        return _unpack(file, f"<{_FORMATS[kind]}")[0]
    of, count = _unpack(file, "<IQ")
    if of in (_STRING, _LIST):
        for _ in range(count):
            _value(file, of)
    else:
        file.seek(count * struct.calcsize(f"<{_FORMATS[of]}"), 1)
    return None


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    text = file.read(length)
    if len(text) < length:
        raise struct.error("cut short")
    return text.decode()


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _refuse_partial(header: Header, path: Path) -> None:
    kind = header.values.get("general.type", "model")
    if kind != "model":
        raise InvalidInput(
            f"{path} is a GGUF file of type {kind!r}, expected a whole model: give the model's file"
        )
    if header.values.get("split.count", 1) > 1:
        raise InvalidInput(
            f"{path} is one of {header.values['split.count']} parts of a model, expected one file: "
            "join them with `llama-gguf-split --merge FIRST_PART WHOLE.gguf`"
        )
