"""Two devices where there is one: tensors on ``cpu:1`` do not mix with those on ``cpu``.

Within `two_devices()`, ``torch.device("cpu", 1)`` is a place of its own. Tensors
brought there with ``.to`` compute as ever, but an operation that is given tensors of both places
fails, as it does between two GPUs; the exceptions are those that torch makes there too (numbers
without dimensions, indices on the CPU, copies).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FIRST = torch.device("cpu")
SECOND = torch.device("cpu", 1)

_COPIES = {"_to_copy", "copy_"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class There(torch.Tensor):
    """A tensor on the second device; `value` is the tensor that computes."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=SECOND,
        )

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def __repr__(self, **_: Any) -> str:
        return f"There({self.value!r})"

    def tolist(self) -> Any:
        return self.value.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Made(TorchFunctionMode):
    """`torch.tensor` fills its memory before any mode of dispatch sees it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and kwargs.get("device") == SECOND:
            return torch.tensor(*args, **{**kwargs, "device": FIRST}).to(SECOND)
        return function(*args, **kwargs)


@contextmanager
def two_devices() -> Generator[None, None, None]:
    """See the module."""
    with _Made(), _Dispatch():
        yield


def _run(function: Any, args: Any, kwargs: Any) -> Any:
    name = function._schema.name.split("::")[1]
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(leaf, There) for leaf in leaves)
    if name in _COPIES:
        there = isinstance(args[0], There)
    else:
        _refuse_mixed(name, args, leaves)
    if kwargs.get("device") is not None:
        there = kwargs["device"] == SECOND
        kwargs = {**kwargs, "device": FIRST}
    wrappers = {id(leaf.value): leaf for leaf in leaves if isinstance(leaf, There)}

    def plain(leaf: Any) -> Any:
        return leaf.value if isinstance(leaf, There) else leaf

    def placed(leaf: Any) -> Any:
        if not there or not isinstance(leaf, torch.Tensor) or isinstance(leaf, There):
            return leaf
        return wrappers.get(id(leaf)) if id(leaf) in wrappers else There(leaf)

    return tree_map(placed, function(*tree_map(plain, args), **tree_map(plain, kwargs)))


def _refuse_mixed(name: str, args: Any, leaves: list[torch.Tensor]) -> None:
    if name in _INDEXED:  # indices may be on the CPU, or with what is indexed
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], There) and any(isinstance(one, There) for one in indices):
            raise RuntimeError(f"{name}: indices are on {SECOND}, what is indexed on {FIRST}")
        leaves = [args[0], *(one for one in args[2:] if isinstance(one, torch.Tensor))]
    here = [leaf for leaf in leaves if not isinstance(leaf, There) and leaf.ndim]
    if here and any(isinstance(leaf, There) for leaf in leaves):
        raise RuntimeError(f"{name}: expected all tensors on one device, found {FIRST}, {SECOND}")


def split(model: torch.nn.Module, blocks: torch.nn.ModuleList, first: int) -> torch.nn.Module:
    """Put the blocks from `first` on, and what comes after them, on the second device.

    Accelerate's hooks carry what passes between, as in a model loaded with a device map. Call it
    inside of `two_devices`.
    """
    inside = {id(module) for module in blocks.modules()}
    head = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    seen_blocks = False
    for module in model.modules():
        place = FIRST
        seen_blocks = seen_blocks or module is blocks
        if id(module) in inside:
            continue
        own = any(True for _ in module.parameters(recurse=False))
        after = seen_blocks and own and not any(m is blocks for m in module.modules())
        if (after and module is not head) or (module is head and not tied):
            place = SECOND
        if next(module.children(), None) is None and module is not blocks:
            _move(module, place)
    for number, block in enumerate(blocks):
        _move(block, SECOND if number >= first else FIRST)
    return model


def _move(module: torch.nn.Module, place: torch.device) -> None:
    if place == SECOND:
        for part in module.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                moved = torch.nn.Parameter(parameter.detach().to(place), parameter.requires_grad)
                part.register_parameter(name, moved)
            for name, buffer in list(part.named_buffers(recurse=False)):
                saved = name not in part._non_persistent_buffers_set
                part.register_buffer(name, buffer.to(place), saved)
    # Every part has a hook in a model that accelerate dispatched.
    for part in module.modules():
        add_hook_to_module(part, AlignDevicesHook(execution_device=place))
