"""Write a GGUF model with a patch in its weights: the base's file with the edited tensors replaced.

The keys (tokenizer, chat template and all) and the other tensors are copied byte by byte; only the
tensors that the patch changes are decoded, changed in float32, and encoded in the type that is
asked for. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
from torch import Tensor

from emend._io import whole_file
from emend._validate import choice_fault, refuse
from emend.errors import InvalidInput, NumericalFailure
from emend.models.gguf_header import Header, TensorPlace, aligned
from emend.models.gguf_names import GgufNames
from emend.patches._gguf_adapter import MARK, check_fit, origin, refuse_foreign_file

if TYPE_CHECKING:
    from emend.patches._weight import WeightPatch

Quantization = Literal["f32", "f16", "q8_0"]
"""How the changed tensors of a merged GGUF model are stored."""

_BLOCK = 1 << 20


def write_merged_gguf(
    patch: WeightPatch,
    path: Path,
    names: GgufNames,
    base: tuple[Path, Header],
    quantization: Quantization,
) -> dict[str, float]:
    """Write the merged model, whole or not at all.

    Args:
        patch: What is merged.
        path: The file; an export of ours is replaced.
        names: The names of the base's tensors.
        base: The GGUF file of the model that the patch was made for, and its header.
        quantization: The type of the tensors that the patch changes: f32, f16 or q8_0.

    Returns:
        What encoding costs each changed tensor: ``||stored - (W + delta)|| / ||delta||``.

    Raises:
        InvalidInput: The base has other tensors, a row does not fill the blocks of the type, or
            the path holds something that is not ours.
        NumericalFailure: A number is beyond the range of the type.
        StoreFailure: It cannot be written.
    """
    refuse("quantization", choice_fault(quantization, get_args(Quantization)))
    source, header = base
    tensors = names.tensors(patch.factors)
    check_fit(patch, tensors, names, header)
    refuse_foreign_file(path)
    if path.exists() and path.samefile(source):
        raise InvalidInput(f"{path} is the base itself, expected another file to write")
    kind = _kind(quantization)
    changed = {f"{tensor}.weight": module for module, tensor in tensors.items()}
    places = _placed(header, changed, kind)
    losses: dict[str, float] = {}
    with whole_file(path) as aside, aside.open("wb") as out, source.open("rb") as file:
        _write_header(out, file, header, places, origin(patch))
        for name, place in header.tensors.items():
            _pad(out, header.alignment)
            if name not in changed:
                _copy(file, out, header.data_at + place.offset, _size(place))
                continue
            module = changed[name]
            delta = names.to_gguf(name.removesuffix(".weight"), patch.factors[module].dense())
            encoded, losses[name] = _changed(name, _decoded(file, header, place), delta, kind)
            out.write(encoded)
        _pad(out, header.alignment)
    return losses


def _kind(quantization: Quantization) -> Any:
    import gguf

    return gguf.GGMLQuantizationType[quantization.upper()]


def _placed(header: Header, changed: Mapping[str, str], kind: Any) -> dict[str, TensorPlace]:
    """Give each tensor its type and place in the new file."""
    places: dict[str, TensorPlace] = {}
    end = 0
    for name, place in header.tensors.items():
        kept = place.kind if name not in changed else int(kind)
        offset = aligned(end, header.alignment)
        places[name] = TensorPlace(place.shape, kept, offset)
        end = offset + _size(places[name], name)
    return places


def _size(place: TensorPlace, name: str = "a tensor") -> int:
    """Give the bytes of a tensor's data."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(place.kind)]
    if place.shape and place.shape[-1] % block:
        raise InvalidInput(
            f"the rows of {name} have {place.shape[-1]} numbers, expected a multiple of {block} "
            "for this type: take quantization='f16'"
        )
    return math.prod(place.shape) // block * size


def _write_header(
    out: BinaryIO, file: BinaryIO, header: Header, places: Mapping[str, TensorPlace], made: str
) -> None:
    key = _free_key(header)
    out.write(b"GGUF" + struct.pack("<IQQ", header.version, len(places), header.entries + 1))
    begin, end = header.keys_at
    _copy(file, out, begin, end - begin)
    out.write(_text(key) + struct.pack("<I", 8) + _text(made))  # 8: a string
    for name, place in places.items():
        axes = place.shape[::-1]
        out.write(_text(name) + struct.pack(f"<I{len(axes)}Q", len(axes), *axes))
        out.write(struct.pack("<IQ", place.kind, place.offset))


def _free_key(header: Header) -> str:
    """Give the key of our note: a merged model may be edited and merged once more."""
    taken = sum(name.startswith(MARK) for name in header.values)
    return f"{MARK}.{taken + 1}" if taken else MARK


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
    """Give ``weight + delta`` as the file stores it, and what storing it costs."""
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
