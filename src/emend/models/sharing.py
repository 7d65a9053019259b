"""What several threads change of one model at a time: hooks of one's own, states held together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock, get_ident
from typing import Any

from torch import nn

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
