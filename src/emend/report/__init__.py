"""Results to look at: tables for the terminal and Markdown, self-contained pages, pictures.

Every kind of result (an evaluation, a trace, average effects, a lens) has the same interface:
`terminal` and `write`. It reads records and plain data, never a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend.report.tables import Table, to_markdown, to_rich

if TYPE_CHECKING:
    from emend.report._views import check_suffix as check_suffix
    from emend.report._views import terminal as terminal
    from emend.report._views import view_of as view_of
    from emend.report._views import write as write

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Table",
    "check_suffix",
    "terminal",
    "to_markdown",
    "to_rich",
    "view_of",
    "write",
]
