"""Writing GGUF files for llama.cpp: a LoRA adapter, or a base model with the patch merged in.

Adapter: alpha is 0, which llama.cpp takes as a scale of 1 whatever the rank, so that the change is
exact and each matrix has the rank that it needs (`llama_adapter_lora_init_impl` in
llama-adapter.cpp).

Merged model: the keys (with tokenizer and chat template) and the other tensors are copied byte by
byte; only the tensors that the patch changes are decoded, changed in float32, and encoded in the
requested type. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import errno
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
from torch import Tensor

from emend._io import whole_file
from emend._validate import choice_fault, refuse
from emend._version import __version__
from emend.errors import InvalidInput, NumericalFailure
from emend.models.gguf import Header, TensorPlace, aligned, read_header
from emend.models.gguf_names import GgufNames
from emend.patches._factors import Factor, LowRank, low_rank

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

MARK = "emend.patch"
"""The key that marks a GGUF file as written by emend, and so replaceable."""

Quantization = Literal["f32", "f16", "q8_0"]
"""Types in which a merged GGUF model can store the changed tensors."""

_STRING = 8  # the number of the type in GGUF
_BLOCK = 1 << 20


def write_gguf_adapter(
    patch: WeightPatch, path: Path, names: GgufNames, base: Header | None
) -> None:
    """Write the adapter, whole or not at all.

    Args:
        patch: The patch.
        path: The file; an earlier export is replaced.
        names: The names of the base's tensors.
        base: Header of the GGUF file that it will be served on, if known.

    Raises:
        InvalidInput: A module has no tensor in such files, the base has another shape there, or
            the path holds a file that is not ours.
        StoreFailure: It cannot be written.
    """
    tensors = names.tensors(patch.factors)
    if base is not None:
        _check_fit(patch, tensors, names, base)
    _refuse_foreign_file(path)
    import gguf

    with whole_file(path) as aside:
        writer = gguf.GGUFWriter(aside, names.architecture)
        try:
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", 0.0)
            if name := patch.base.get("name"):
                writer.add_string("general.base_model.0.name", str(name))
            writer.add_string(MARK, _origin(patch))
            for module, tensor in tensors.items():
                if patch.factors[module].rank:
                    _add(writer, names, tensor, low_rank(patch.factors[module])[0])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
        _check_size(aside)


def write_merged_gguf(
    patch: WeightPatch,
    path: Path,
    names: GgufNames,
    base: tuple[Path, Header],
    quantization: Quantization,
) -> dict[str, float]:
    """Write the merged model, whole or not at all.

    Args:
        patch: The patch.
        path: The file; an earlier export is replaced.
        names: The names of the base's tensors.
        base: The GGUF file of the model that the patch was made for, and its header.
        quantization: The type of the tensors that the patch changes.

    Returns:
        The rounding error of each changed tensor: ``||stored - (W + delta)|| / ||delta||``.

    Raises:
        InvalidInput: The base has other tensors, a row does not fill the blocks of the type, or
            the path holds a file that is not ours.
        NumericalFailure: A number is beyond the range of the type.
        StoreFailure: It cannot be written.
    """
    refuse("quantization", choice_fault(quantization, get_args(Quantization)))
    source, header = base
    tensors = names.tensors(patch.factors)
    _check_fit(patch, tensors, names, header)
    _refuse_foreign_file(path)
    if path.exists() and path.samefile(source):
        raise InvalidInput(f"{path} is the base itself, expected another file to write")
    deltas = {
        f"{tensor}.weight": partial(_delta, names, tensor, patch.factors[module])
        for module, tensor in tensors.items()
    }
    with whole_file(path) as aside, aside.open("wb") as out, source.open("rb") as file:
        return _write_merged(out, file, header, deltas, quantization, _origin(patch))


def _check_fit(
    patch: WeightPatch, tensors: Mapping[str, str], names: GgufNames, base: Header
) -> None:
    """Refuse a GGUF base whose tensors differ from those of the model the patch was made for.

    Raises:
        InvalidInput: Its architecture is another, or a tensor is missing or of another shape.
    """
    if base.architecture != names.architecture:
        raise InvalidInput(
            f"the base GGUF is of architecture {base.architecture!r}, the patch is for "
            f"{names.architecture!r}: give the GGUF of the model that was edited"
        )
    for module, tensor in tensors.items():
        place = base.tensors.get(f"{tensor}.weight")
        if place is None:
            raise InvalidInput(
                f"the base GGUF has no tensor {tensor}.weight, which the patch changes ({module}): "
                "give the GGUF of the model that was edited"
            )
        if place.shape != patch.factors[module].shape:
            raise InvalidInput(
                f"{tensor}.weight is {place.shape} in the base GGUF, but the patch changes a "
                f"matrix of {patch.factors[module].shape} ({module}): give the GGUF of the model "
                "that was edited"
            )


def _refuse_foreign_file(path: Path) -> None:
    """Refuse to replace a file that emend did not export."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        ours = path.is_file() and MARK in read_header(path, whole=False).values
    except ValueError:
        ours = False
    if not ours:
        raise InvalidInput(
            f"{path} is there and is not a GGUF file that emend exported: give another path"
        )


def _origin(patch: WeightPatch) -> str:
    """State what a GGUF file was made of, as JSON for its key `MARK`."""
    about = {
        "emend_version": __version__,
        "method": patch.method,
        "edits": [edit.id for edit in patch.edits],
        "base": {name: patch.base.get(name) for name in ("name", "hash", "model_type")},
    }
    return json.dumps(about)


def _add(writer: Any, names: GgufNames, tensor: str, factor: LowRank) -> None:
    rows = names.to_gguf(tensor, factor.B)
    writer.add_tensor(f"{tensor}.weight.lora_a", factor.A.contiguous().numpy())
    writer.add_tensor(f"{tensor}.weight.lora_b", rows.contiguous().numpy())


def _check_size(path: Path) -> None:
    """Refuse a file that was cut short: numpy's `tofile` ignores the errors of a full disk.

    Raises:
        OSError: The tensors that it names reach beyond its end.
    """
    header = read_header(path, whole=False)
    ends = (4 * math.prod(place.shape) + place.offset for place in header.tensors.values())
    if path.stat().st_size < header.data_at + max(ends):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _delta(names: GgufNames, tensor: str, factor: Factor) -> Tensor:
    return names.to_gguf(tensor, factor.dense())


def _write_merged(
    out: BinaryIO,
    file: BinaryIO,
    header: Header,
    deltas: Mapping[str, Callable[[], Tensor]],
    quantization: Quantization,
    origin: str,
) -> dict[str, float]:
    import gguf

    kind = gguf.GGMLQuantizationType[quantization.upper()]
    losses: dict[str, float] = {}
    _write_header(out, file, header, _placed(header, deltas, int(kind)), origin)
    for name, place in header.tensors.items():
        _pad(out, header.alignment)
        if name not in deltas:
            _copy(file, out, header.data_at + place.offset, _size(place))
            continue
        encoded, losses[name] = _changed(name, _decoded(file, header, place), deltas[name](), kind)
        out.write(encoded)
    _pad(out, header.alignment)
    return losses


def _placed(header: Header, changed: Mapping[str, Any], kind: int) -> dict[str, TensorPlace]:
    """Return the type and place of each tensor in the new file."""
    places: dict[str, TensorPlace] = {}
    end = 0
    for name, place in header.tensors.items():
        offset = aligned(end, header.alignment)
        places[name] = TensorPlace(place.shape, kind if name in changed else place.kind, offset)
        end = offset + _size(places[name], name)
    return places


def _size(place: TensorPlace, name: str = "a tensor") -> int:
    """Return the size of a tensor's data in bytes."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(place.kind)]
    if place.shape and place.shape[-1] % block:
        raise InvalidInput(
            f"the rows of {name} have {place.shape[-1]} numbers, expected a multiple of {block} "
            "for this type: take quantization='f16'"
        )
    return math.prod(place.shape) // block * size


def _write_header(
    out: BinaryIO, file: BinaryIO, header: Header, places: Mapping[str, TensorPlace], origin: str
) -> None:
    # A merged model may be edited and merged once more, so that the key may be taken.
    taken = sum(name.startswith(MARK) for name in header.values)
    key = f"{MARK}.{taken + 1}" if taken else MARK
    out.write(b"GGUF" + struct.pack("<IQQ", header.version, len(places), header.entries + 1))
    begin, end = header.keys_at
    _copy(file, out, begin, end - begin)
    out.write(_text(key) + struct.pack("<I", _STRING) + _text(origin))
    for name, place in places.items():
        axes = place.shape[::-1]
        out.write(_text(name) + struct.pack(f"<I{len(axes)}Q", len(axes), *axes))
        out.write(struct.pack("<IQ", place.kind, place.offset))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(bytes(aligned(out.tell(), alignment) - out.tell()))


def _copy(file: BinaryIO, out: BinaryIO, begin: int, size: int) -> None:
    file.seek(begin)
    while size:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise InvalidInput(f"{file.name} ends within its tensors: get it again")
        out.write(block)
        size -= len(block)


def _decoded(file: BinaryIO, header: Header, place: TensorPlace) -> Any:
    """Read a matrix of the base, (out, in) float32."""
    import gguf

    file.seek(header.data_at + place.offset)
    data = np.frombuffer(file.read(_size(place)), dtype=np.uint8)
    rows = data.reshape(place.shape[0], -1)
    return gguf.dequantize(rows, gguf.GGMLQuantizationType(place.kind)).reshape(place.shape)


def _changed(name: str, weight: Any, delta: Tensor, kind: Any) -> tuple[bytes, float]:
    """Encode ``weight + delta``; return the bytes and the relative rounding error."""
    import gguf

    change = delta.numpy()
    wanted = weight + change
    with np.errstate(over="ignore"):
        encoded = gguf.quantize(wanted, kind)
    stored = gguf.dequantize(encoded.view(np.uint8), kind).reshape(wanted.shape)
    if not np.isfinite(stored).all():
        raise NumericalFailure(
            f"{name} with the patch is beyond the range of {kind.name}, expected finite numbers: "
            "take quantization='f32'"
        )
    norm = float(np.linalg.norm(change))
    loss = float(np.linalg.norm(stored - wanted)) / norm if norm else 0.0
    return encoded.tobytes(), loss
