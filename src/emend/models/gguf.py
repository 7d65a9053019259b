"""GGUF models: read the header of a file, and convert it to a directory in Hugging Face form.

**Header.** It states what kind of file it is, before the long work of loading it. Only single
numbers and strings are kept and lists are passed over: the reader of the package `gguf` makes an
array of each of a vocabulary's strings, which takes ten seconds on 262,144 tokens. Layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

**Conversion.** The weights are dequantised to float32, once, to a directory that loads in seconds.
In half precision they would change: a number of Q4_1 is d * q + m with d and m in float16, which
takes more bits than float16 or bfloat16 have. Measured on SmolLM2-135M: 42% of the numbers change
in float16, 79% in bfloat16 (docs/real-models.md).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import shutil
import struct
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from emend.errors import (
    BrokenFile,
    EmendError,
    InvalidInput,
    MissingExtra,
    NotEnoughMemory,
    StoreFailure,
)
from emend.models.saving import quiet, save_model, save_tokenizer

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
    """The header of a GGUF file, before its tensors.

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
    """Read one value; None for a list, which is passed over."""
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


CONVERSION = 1
"""Goes up when a file is converted to something else than before, so that caches are made again."""

_SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Of ``tokenizer.ggml.pre``: each digit is a piece of its own, the rest is split as by GPT-2."""


def convert(path: Path, folder: Path) -> Header:
    """Write the model in a GGUF file, and its tokenizer, to a directory.

    Args:
        path: The file.
        folder: An empty directory, which gets config.json, safetensors in float32 and the
            tokenizer with its chat template.

    Returns:
        The header of the file.

    Raises:
        MissingExtra: The package gguf is not installed.
        BrokenFile: It is no GGUF file, is cut short, or of a kind that transformers cannot read.
        InvalidInput: It holds no whole model.
        NotEnoughMemory: The weights in float32 take more room than the disk has.
    """
    check_reader(path.name)
    header = read_header(path)
    _check_room(header, path, folder)
    try:
        with quiet(), _bars_on_terminals_only():
            model, tokenizer = _read(path)
            _restore_split(tokenizer, header)
            save_model(model, folder)
            save_tokenizer(tokenizer, folder)
    except EmendError:
        raise
    except OSError as error:
        raise StoreFailure(
            f"{path} cannot be converted in {folder.parent} ({error.strerror or error}): free some "
            "room, or set EMEND_CACHE to another place"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BrokenFile(
            f"{path} ({header.architecture or 'no architecture'}) cannot be read by transformers: "
            f"{reason}; take the model in Hugging Face form"
        ) from error
    return header


def check_reader(name: str) -> None:
    """Refuse a GGUF model where the package that reads it is not installed.

    Raises:
        MissingExtra: It is not.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra.of("gguf", "gguf", f"read {name}")


def _read(path: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32}
    config = getattr(transformers, "GgufConfig", None)
    if config is not None:  # since 5.20 weights may else be left in their blocks
        options["quantization_config"] = config(dequantize=True)
    loader: Any = transformers.AutoModelForCausalLM
    model, found = loader.from_pretrained(
        path.parent, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    # transformers would fill these with random numbers.
    wrong = sorted([*found["missing_keys"], *(one[0] for one in found["mismatched_keys"])])
    if wrong:
        raise BrokenFile(
            f"{path}: transformers finds {len(wrong)} of the model's tensors missing or of another "
            f"shape ({wrong[0]}, ...); take the model in Hugging Face form"
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, tokenizer


def _restore_split(tokenizer: Any, header: Header) -> None:
    """Cut out single digits where the vocabulary was made so, which transformers leaves out."""
    if header.values.get("tokenizer.ggml.pre") not in _SINGLE_DIGITS:
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _check_room(header: Header, path: Path, folder: Path) -> None:
    needed, free = 4 * header.parameters, shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughMemory(
            f"{path} takes {needed / 1e9:.1f} GB in float32, and {folder.parent} has "
            f"{free / 1e9:.1f} GB free: free some room, or set EMEND_CACHE to another place"
        )


@contextmanager
def _bars_on_terminals_only() -> Generator[None, None, None]:
    """Hide the progress bar that transformers shows for GGUF files in a pipe, too."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
