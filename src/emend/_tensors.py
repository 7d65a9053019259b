"""Digests of tensors: every byte is hashed, once for as long as the tensor does not change.

A digest is cached with the tensor's storage and its version counter, which every in-place operation
of torch raises: an optimizer's step, ``load_state_dict``, ``copy_`` under ``torch.no_grad``. A weak
reference to the storage keeps its address from being reused. ``weight.data.add_`` and writes
through numpy do not raise the counter. Therefore one number of every row and every column is
compared too, which detects merged adapters, rows added to an embedding, and any dense change. A
write past the counter to a few single numbers is not detected: call `models.forget_fingerprints`
after it.

torch is imported only when there is a tensor, so that this module can be below all rooms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 18
"""Numbers hashed at a time on a CPU, as many as fit into its cache."""

CHUNK_ELSEWHERE = 1 << 24
"""Numbers copied from another device at a time."""

SAMPLED = 1 << 18
"""The largest number of values compared if a tensor's counter has not changed."""


@dataclass(frozen=True)
class Digests:
    """Two digests of one tensor, or of several with their names.

    Attributes:
        exact: Of every byte, the dtype and the shape. 32 hexadecimal digits.
        rounded: Of the values rounded to bfloat16 and the shape, so that it is the same for a
            checkpoint loaded in float32 and in bfloat16. Integers are not rounded.
    """

    exact: str
    rounded: str


@dataclass(frozen=True)
class Stored:
    """A tensor that is read when it is needed.

    Attributes:
        read: Reads it.
        place: A key that changes when the stored tensor does; None if unknown, so that it is read
            each time.
    """

    read: Callable[[], Tensor]
    place: Hashable | None


@dataclass(frozen=True)
class _Known:
    storage: Any
    version: int
    sample: str
    digests: Digests


_known: dict[Hashable, _Known] = {}
_stored: dict[Hashable, Digests] = {}
_lock = Lock()


def digests_of_all(tensors: Iterable[tuple[str, Tensor | Stored]]) -> Digests:
    """Hash several tensors with their names, in any order."""
    return combined((name, digests_of(tensor)) for name, tensor in tensors)


def combined(parts: Iterable[tuple[str, Digests]]) -> Digests:
    """Combine the digests of several tensors with their names, in any order."""
    exact, rounded = xxhash.xxh3_128(), xxhash.xxh3_128()
    for name, digests in sorted(parts, key=lambda one: one[0]):
        exact.update(f"{name}\0{digests.exact}\0".encode())
        rounded.update(f"{name}\0{digests.rounded}\0".encode())
    return Digests(exact.hexdigest(), rounded.hexdigest())


def digests_of(tensor: Tensor | Stored) -> Digests:
    """Return the digests of a tensor, cached if it has not changed."""
    if isinstance(tensor, Stored):
        return _of_stored(tensor)
    tensor = tensor.detach()
    # Inference tensors count no versions; those that wrap others (DTensor) have no memory.
    if tensor.is_inference() or not tensor.data_ptr():
        return _computed(tensor)
    storage: Any = tensor.untyped_storage()
    place = (
        *(storage._cdata, storage.data_ptr(), tensor.storage_offset()),
        *(tuple(tensor.shape), tensor.stride(), tensor.dtype),
    )
    version, sample = tensor._version, _sample(tensor)
    with _lock:
        known = _known.get(place)
    if known is not None and known.version == version and known.sample == sample:
        return known.digests
    digests = _computed(tensor)
    _keep(place, storage, version, sample, digests)
    return digests


def forget() -> None:
    """Clear the cache, after values were written past torch's version counter."""
    with _lock:
        _known.clear()
        _stored.clear()


def _of_stored(tensor: Stored) -> Digests:
    with _lock:
        known = None if tensor.place is None else _stored.get(tensor.place)
    if known is None:
        known = _computed(tensor.read().detach())
        if tensor.place is not None:
            with _lock:
                _stored[tensor.place] = known
    return known


def _keep(place: Hashable, storage: Any, version: int, sample: str, digests: Digests) -> None:
    from torch.multiprocessing.reductions import StorageWeakRef

    known = _Known(StorageWeakRef(storage), version, sample, digests)
    with _lock:
        _known[place] = known
        if len(_known) & (len(_known) - 1) == 0:  # rarely: at 1, 2, 4, 8, ... entries
            for each in [each for each, old in _known.items() if old.storage.expired()]:
                del _known[each]


class Digester:
    """Hashes one tensor as its numbers come, a part at a time.

    Args:
        dtype: Of the tensor.
        shape: Of the tensor.
    """

    def __init__(self, dtype: Any, shape: Iterable[int]) -> None:
        import torch

        self._dtype, self._shape = dtype, tuple(shape)
        self._rounds = dtype.is_floating_point and dtype != torch.bfloat16
        self._exact, self._rounded = xxhash.xxh3_128(), xxhash.xxh3_128()

    def update(self, flat: Tensor) -> None:
        """Hash the next numbers, (N,)."""
        import torch

        self._exact.update(_bytes(flat))
        if self._rounds:
            self._rounded.update(_bytes(flat.to(torch.bfloat16)))

    def digests(self) -> Digests:
        """Return the digests of all numbers."""
        dtype, shape = self._dtype, self._shape
        about = xxhash.xxh3_128(f"{dtype} {shape} {self._exact.hexdigest()}".encode())
        kind = "rounded" if dtype.is_floating_point else str(dtype)
        content = self._rounded if self._rounds else self._exact
        loosely = xxhash.xxh3_128(f"{kind} {shape} {content.hexdigest()}".encode())
        return Digests(about.hexdigest(), loosely.hexdigest())


def _computed(tensor: Tensor) -> Digests:
    digester = Digester(tensor.dtype, tensor.shape)
    flat = tensor.contiguous().reshape(-1)
    for chunk in flat.split(CHUNK if tensor.device.type == "cpu" else CHUNK_ELSEWHERE):
        digester.update(chunk)
    return digester.digests()


def _sample(tensor: Tensor) -> str:
    """Hash one number of each row and of each column, at scattered places."""
    import torch

    if not tensor.numel():
        return ""
    table = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)
    rows = torch.arange(table.shape[0], device=tensor.device)
    columns = torch.arange(table.shape[1], device=tensor.device)
    at_row = torch.cat([rows, columns * 104_729 % len(rows)])
    at_column = torch.cat([rows * 7919 % len(columns), columns])
    step = -(-len(at_row) // SAMPLED)
    return xxhash.xxh3_128_hexdigest(_bytes(table[at_row[::step], at_column[::step]]))


def _bytes(flat: Tensor) -> memoryview:
    import torch

    array: Any = flat.contiguous().cpu().view(torch.uint8).numpy()
    return memoryview(array)
