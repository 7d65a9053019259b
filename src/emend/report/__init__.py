"""Results to look at: tables for the terminal and Markdown, self-contained pages, pictures.

Every kind of result (an evaluation, a trace, average effects, a lens) has the same interface:
`terminal` and `write`. It reads records and plain data, never a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emend.report.tables import Table, to_markdown, to_rich

if TYPE_CHECKING:
    from emend.report._views import check_suffix as check_suffix
    from emend.report._views import terminal as terminal
    from emend.report._views import view_of as view_of
    from emend.report._views import write as write

_VIEWS = ("check_suffix", "terminal", "view_of", "write")

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "Table",
    "to_markdown",
    "to_rich",
    *_VIEWS,
]


def __getattr__(name: str) -> Any:
    """Import what reads results, and with it torch, when it is first asked for."""
    if name in _VIEWS:
        return getattr(importlib.import_module("emend.report._views"), name)
    raise AttributeError(f"module 'emend.report' has no attribute {name!r}")
