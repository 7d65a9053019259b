"""Read the header of a GGUF file: what kind of file it is, before the long work of loading it.

Only single numbers and strings are kept and lists are passed over: the reader of the package
`gguf` makes an array of each of a vocabulary's strings, which takes ten seconds on 262,144 tokens.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from emend.errors import BrokenFile, InvalidInput

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_FORMATS = "B b H h I i f ? s a Q q d".split()  # by the number of the type; s: string, a: list
_STRING, _LIST = 8, 9


@dataclass(frozen=True)
class Header:
    """What stands before the tensors of a GGUF file.

    Attributes:
        values: The single numbers and strings by their keys.
        parameters: Numbers in all tensors together.
    """

    values: dict[str, Any]
    parameters: int

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
        except (struct.error, OverflowError, MemoryError, IndexError, UnicodeDecodeError):
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
    for _ in range(entries):
        key = _string(file)
        value = _value(file, _unpack(file, "<I")[0])
        if value is not None:
            values[key] = value
    parameters = 0
    for _ in range(tensors):
        _string(file)
        (dimensions,) = _unpack(file, "<I")
        parameters += math.prod(_unpack(file, f"<{dimensions}Q"))
        _unpack(file, "<IQ")  # the type, and where the tensor begins
    return Header(values, parameters)


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
