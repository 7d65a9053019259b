"""Tables as plain data, shown on a terminal or as Markdown. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from emend.report._colours import colour, hexadecimal, ink

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable


class Shade(NamedTuple):
    """A cell of a heat map: its text, and the value that its colour shows.

    Attributes:
        text: What is written in it.
        value: What is coloured.
        limit: The value whose colour is the darkest.
    """

    text: str
    value: float
    limit: float


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: Its title.
        columns: Names of the columns.
        rows: Cells by row, as texts or shades.
        faint: Numbers of rows that are parts of the row above.
        packed: Whether cells adjoin, without lines between them.
        note: A line that follows the table; "" for none.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Shade]]
    faint: frozenset[int] = frozenset()
    packed: bool = False
    note: str = ""


def to_rich(table: Table) -> Group:
    """Render a table for a terminal; numbers, but in the first column, are right-aligned."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(table.title, style="bold")
    if table.packed:
        shown, above = RichTable(box=None, padding=0, pad_edge=False), [title]
    else:
        shown, above = RichTable(title=title, title_justify="left"), []
    _fill(shown, table)
    return Group(*above, shown, *([Text(table.note)] if table.note else []))


def _fill(shown: RichTable, table: Table) -> None:
    from rich.style import Style
    from rich.text import Text

    for index, name in enumerate(table.columns):
        numeric = index > 0 and all(_is_number(row[index]) for row in table.rows if row[index:])
        justify = "right" if numeric or (index and table.packed) else "left"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=table.packed)
    for number, row in enumerate(table.rows):
        cells: list[Text] = []  # Text: brackets in a cell are no markup
        for cell in row:
            if isinstance(cell, str):
                cells.append(Text(cell))
            else:
                ground = colour(cell.value, cell.limit)
                style = Style(color=ink(ground), bgcolor=hexadecimal(ground))
                cells.append(Text(cell.text, style=style))
        shown.add_row(*cells, style="dim" if number in table.faint else None)


def to_markdown(table: Table) -> str:
    """Render a table as Markdown, its title in bold above it."""
    texts = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]
    numeric = [
        index > 0 and all(_is_number(row[index]) for row in texts)
        for index in range(len(table.columns))
    ]
    lines = [
        _markdown_row(table.columns),
        "|" + "|".join("---:" if one else "---" for one in numeric) + "|",
        *map(_markdown_row, texts),
    ]
    above = [f"**{table.title}**", ""] if table.title else []
    below = ["", table.note] if table.note else []
    return "\n".join([*above, *lines, *below]) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _is_number(cell: str | Shade) -> bool:
    text = cell if isinstance(cell, str) else cell.text.strip()
    return text in ("-", "–") or text.removeprefix("-")[:1].isdigit()
