"""What belongs to a call of a model and not to the model: one table in a context variable.

A context is a thread, or an asyncio task: each has its own, and a task starts with a copy of the
one that created it. What one context sets no other one sees, so that two threads may ask one
model at the same time, each with another patch. Values are kept by a name and the object that
they belong to.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Table = Mapping[tuple[str, Any], Any]

_TABLE: ContextVar[Table] = ContextVar("emend_call", default={})  # noqa: B039 (never mutated)


def table() -> Table:
    """Return everything that the current context has set."""
    return _TABLE.get()


def value(name: str, owner: Any) -> Any:
    """Return what the current context has set under ``name`` for ``owner``, or None."""
    return _TABLE.get().get((name, owner))


def put(name: str, owner: Any, new: Any) -> None:
    """Set a value in the current context; None takes it out."""
    kept = {key: one for key, one in _TABLE.get().items() if key != (name, owner)}
    _TABLE.set(kept if new is None else {**kept, (name, owner): new})


@contextmanager
def within(whole: Table) -> Generator[None, None, None]:
    """Set the whole table inside the block: a later call is then made as an earlier one was."""
    before = _TABLE.get()
    _TABLE.set(whole)
    try:
        yield
    finally:
        _TABLE.set(before)
