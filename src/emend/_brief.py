"""One-line `repr` of objects that hold tensors, records or settings."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T", bound=type)

_MOST = 60
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _MOST


def brief(kind: T) -> T:
    """Give a dataclass a `repr` of one line: of tensors and long collections their size alone.

    Goes above ``@dataclass``. Subclasses have it too.
    """

    def represent(self: Any) -> str:
        shown = [f"{f.name}={_value(getattr(self, f.name))}" for f in dataclasses.fields(self)]
        return f"{type(self).__name__}({', '.join(shown)})"

    kind.__repr__ = represent  # pyright: ignore[reportAttributeAccessIssue]
    return kind


def size_text(size: int) -> str:
    """Write a number of bytes: "512 B", "3.4 kB", "1.2 MB"."""
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun: "1 edit", "20 edits"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _value(value: Any) -> str:
    """Write a value in a few words."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind}[{', '.join(map(str, cast('Sequence[int]', shape)))}]"
    if isinstance(value, (str, bytes, int, float, bool, type(None))):
        return _short.repr(value)
    text = " ".join(repr(value).split()) if _is_small(value) else ""
    if text and len(text) <= _MOST:
        return text
    if isinstance(value, (Mapping, Sequence, set, frozenset)):
        return f"<{count_text(len(cast('Sequence[Any]', value)), 'item')}>"
    return text if dataclasses.is_dataclass(value) else f"<{type(value).__name__}>"


def _is_small(value: Any) -> bool:
    """Return whether a value can be written out to be measured: no tensor is inside."""
    if isinstance(value, Mapping):
        inner = list(cast("Mapping[Any, Any]", value).values())
    elif isinstance(value, (Sequence, set, frozenset)):
        inner = list(cast("Sequence[Any]", value))
    else:
        return True
    return len(inner) <= 8 and not any(hasattr(one, "dtype") for one in inner)
