"""A progress bar on a terminal, and none in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(iterable: Iterable[T], description: str, total: float | None = None) -> Iterator[T]:
    """Pass items through, with a bar on standard error where that is a terminal.

    Args:
        iterable: What to go through.
        description: What the bar says is being done.
        total: How many items will come; taken from `len(iterable)` where it has one.

    Yields:
        The items, unchanged.
    """
    if not sys.stderr.isatty():
        yield from iterable
        return
    # Here and not above: rich takes a tenth of a second that a pipe need not pay.
    from rich.console import Console
    from rich.progress import track

    yield from track(
        iterable, description, total=total, console=Console(stderr=True), transient=True
    )


def announce(line: str) -> None:
    """State on standard error, in one line, why the caller has to wait."""
    sys.stderr.write(f"emend: {line}\n")
    sys.stderr.flush()
