"""A summary as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emend.report._results import Entry, is_share, label, plain, share

if TYPE_CHECKING:
    from rich.table import Table


def summary_table(summary: Mapping[str, Entry], title: str | None = None) -> Table:
    """Each measure and group: edits asked, before, after, and after by the other protocols.

    Args:
        summary: ``Report.summary``, or the same read from JSON.
        title: What stands above.
    """
    from rich.table import Table  # heavy: only when a table is wanted

    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    for column in ("edits", "before", "after", "teacher forced", "probability"):
        table.add_column(column, justify="right")
    for name, entry in summary.items():
        if is_share(entry):
            table.add_row(*_row(label(name), entry))
            for group, part in entry.get("groups", {}).items():
                table.add_row(*_row(f"  {label(group)}", part), style="dim")
            for language, part in entry.get("languages", {}).items():
                table.add_row(*_row(f"  in {language}", part), style="dim")
        elif "before" in entry:
            values = (plain(entry.get("before")), plain(entry.get("after")))
            table.add_row(label(name), str(entry.get("n", "–")), *values)
    return table


def _row(name: str, entry: Mapping[str, Any]) -> list[str]:
    protocols = entry.get("protocols", {})  # which a language has none of
    others = (protocols.get(p, {}).get("after") for p in ("teacher_forced", "probability"))
    shares = (entry["before"], entry["after"], *others)
    return [name, str(entry["n"]), *(share(value) for value in shares)]
