"""Hooks that watch or change a forward pass inside a block, for this thread alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, nn

from emend.models.placing import at_least_float32

_LOCK = RLock()
_HELD: dict[Hashable, list[_Holder]] = {}


@dataclass(eq=False)
class _Holder:
    """A block that holds a change: the thread that it is in, and what takes its part back."""

    thread: int
    undo: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])


@contextmanager
def hooked(
    module: nn.Module,
    hook: Callable[..., Any],
    *,
    before: bool = False,
    with_kwargs: bool = False,
) -> Generator[None, None, None]:
    """Keep a forward hook on ``module`` inside the block, for passes of this thread alone.

    Args:
        module: The module.
        hook: As torch takes it.
        before: Run it before the module, not after.
        with_kwargs: Give it the keyword arguments too.
    """
    owner = get_ident()

    # A hook that another thread removes during a pass may be called without its kwargs.
    def own(*given: Any) -> Any:
        return hook(*given) if get_ident() == owner else None

    if before:
        handle = module.register_forward_pre_hook(own, with_kwargs=with_kwargs)
    else:
        handle = module.register_forward_hook(own, with_kwargs=with_kwargs)
    try:
        yield
    finally:
        handle.remove()


class Stop(Exception):
    """Raised by a hook when what was wanted has been seen."""


def is_stop(error: BaseException) -> bool:
    """Return whether a pass ended by a `Stop`.

    On the way out of a pass torch goes through the hooks of each module, and raises a RuntimeError
    of its own where another thread sets one at that time.
    """
    return isinstance(error, Stop) or isinstance(error.__context__, Stop)


@contextmanager
def together(
    key: Hashable, change: Callable[[], Callable[[], None]]
) -> Generator[None, None, None]:
    """Hold a change of a model inside the block, with other threads that hold the same one.

    Args:
        key: Names the change and the model, which lives as long as the block.
        change: Changes what is not changed yet, and returns what takes that back. It is taken
            back at the end of the block, or where another thread still is in such a block, at
            the end of that one.
    """
    holder = _Holder(get_ident())
    with _LOCK:
        holder.undo.append(change())
        _HELD.setdefault(key, []).append(holder)
    try:
        yield
    finally:
        with _LOCK:
            holders = _HELD[key]
            holders.remove(holder)
            heir = next((one for one in holders if one.thread != holder.thread), None)
            if heir is not None:
                heir.undo += holder.undo
            else:
                for undo in reversed(holder.undo):
                    undo()
            if not holders:
                del _HELD[key]


@contextmanager
def stopping(module: nn.Module, *, before: bool = False) -> Generator[None, None, None]:
    """Leave the block once ``module`` has put out what it does, or ``before`` it runs.

    Hooks of the module that were set before have seen it then.
    """

    def stop(*_: Any) -> None:
        raise Stop

    try:
        with hooked(module, stop, before=before):
            yield
    except Exception as error:
        if not is_stop(error):
            raise


@contextmanager
def frozen(model: nn.Module) -> Generator[None, None, None]:
    """Switch off the gradients of all parameters inside the block; their flags are restored.

    Of threads that do so at the same time the last one gives the flags back.
    """

    def freeze() -> Callable[[], None]:
        # By name: an offloaded parameter is another object after every pass.
        asking = [
            (module, name)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        for module, name in asking:
            module.get_parameter(name).requires_grad_(False)

        def restore() -> None:
            for module, name in asking:
                module.get_parameter(name).requires_grad_(True)

        return restore

    with together(("frozen", id(model)), freeze):
        yield


@contextmanager
def editing_output(
    module: nn.Module, edit: Callable[[Tensor], Tensor]
) -> Generator[None, None, None]:
    """Pass a module's output through ``edit``; of a tuple, as attention returns, its first part."""

    def change(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    with hooked(module, change):
        yield


@contextmanager
def adding(
    module: nn.Module, delta: Tensor, at: Tensor | None = None
) -> Generator[None, None, None]:
    """Add ``delta`` to a module's output.

    Args:
        module: One that returns (B, S, hidden_size), the same folded to two axes (OPT), or a
            tuple that begins with it.
        delta: (B, hidden_size) with ``at``, else (B, S, hidden_size).
        at: (B,) int64, the column of each row; None for all.
    """

    def add(output: Tensor) -> Tensor:
        if at is None:
            return output + delta.reshape(output.shape)
        apart = output.reshape(len(at), -1, output.shape[-1])
        return add_at(apart, delta, at).reshape(output.shape)

    with editing_output(module, add):
        yield


@contextmanager
def putting(
    module: nn.Module, rows: int, chosen: slice, column: int, values: Tensor
) -> Generator[None, None, None]:
    """Replace a module's output at one column of some rows.

    Args:
        module: As for `adding`.
        rows: Number of rows, B.
        chosen: The n rows to change.
        column: Which of the S tokens.
        values: (n, hidden_size).
    """

    def put(output: Tensor) -> Tensor:
        changed = output.reshape(rows, -1, output.shape[-1]).clone()
        changed[chosen, column] = values.to(changed)
        return changed.reshape(output.shape)

    with editing_output(module, put):
        yield


@contextmanager
def thinned(
    down: nn.Module,
    projections: Sequence[nn.Module],
    shape: tuple[int, int],
    rows: Tensor,
    columns: Tensor,
) -> Generator[None, None, None]:
    """Run an MLP at some tokens only; at all others it puts out zero.

    Its projections work token by token, so what comes before them can be left out at the others.

    Args:
        down: Its down-projection.
        projections: The projections before that.
        shape: Rows and tokens of the MLP's input, (B, S).
        rows: (N,) int64, rows of the tokens.
        columns: (N,) int64, their columns.
    """
    places = torch.unique(rows * shape[1] + columns)  # (n,), in B*S
    leading: list[torch.Size] = []  # (B, S), or (B*S,) as OPT folds them

    def thin(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        leading.append(args[0].shape[:-1])
        flat = args[0].reshape(shape[0] * shape[1], -1)
        return (flat[places.to(flat.device)], *args[1:])  # (n, features)

    def fill(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        whole = whole.index_copy(0, places.to(output.device), output)
        return whole.reshape(*leading[-1], -1)

    with ExitStack() as stack:
        for module in projections:
            stack.enter_context(hooked(module, thin, before=True))
        stack.enter_context(hooked(down, fill))
        yield


def plus_change(given: Tensor, output: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Compute a module's output with its weight changed: ``y + x A^T B^T``.

    Args:
        given: (..., in), x, the module's input; it may be on the device of the module before.
        output: (..., out), y.
        matrices: What x is multiplied by, one after another: A (r, in) and B (out, r), or the
            whole change (out, in).

    Returns:
        (..., out), summed in float32 (float64 for a float64 output) and rounded once to y's dtype.
    """
    dtype = at_least_float32(output.dtype)
    change = given.to(device=output.device, dtype=dtype)  # (..., in)
    # Autocast would round the factors to half precision.
    with torch.autocast(change.device.type, enabled=False):
        for matrix in matrices:
            change = change @ matrix.to(change).T  # (..., r), then (..., out)
    return (output.to(dtype) + change).to(output.dtype)


@contextmanager
def changing(module: nn.Module, *matrices: Tensor) -> Generator[None, None, None]:
    """Add a change of a module's weight to its output, as an attached patch does.

    Args:
        module: A projection.
        matrices: The change, see `plus_change`.
    """

    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return plus_change(args[0], output, matrices)

    with hooked(module, add):
        yield


def wiped(hidden: Tensor, padding: Tensor | None) -> Tensor:
    """Zeros at padding. Softmax over nothing gives NaN in some models, and 0 * NaN spreads."""
    if padding is None:
        return hidden
    return hidden.masked_fill(padding[..., None].to(hidden.device), 0.0)


def add_at(hidden: Tensor, delta: Tensor, at: Tensor) -> Tensor:
    """Add (B, hidden_size) to (B, S, hidden_size) at column ``at`` (B,)."""
    index = torch.arange(len(hidden), device=hidden.device), at.to(hidden.device)
    if hidden.dtype not in (torch.float16, torch.bfloat16):
        return hidden.index_put(index, delta.to(hidden), accumulate=True)
    # Added in float32 and rounded once, as an attached patch does.
    wide = hidden[index].float() + delta.to(device=hidden.device, dtype=torch.float32)
    return hidden.index_put(index, wide.to(hidden.dtype))
