"""Heat maps and lens tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend.locate import Lens, Trace
from emend.report._locating import title_of
from emend.report._ramp import colour, hexadecimal, ink, visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

WIDE, MIDDLING = 16, 32
"""Blocks up to which cells have four characters, and up to which they have two; beyond, one."""


def trace_table(found: Trace, kind: str) -> Group:
    """A heat map of one kind: effects in percentage points, tokens by layers.

    Where there are many layers, a cell has one digit: tenths of the largest effect. Where there
    are very many, colour alone tells what is less than nothing.
    """
    from rich.console import Group
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

    effects = found.effects[kind]
    limit = float(effects.abs().max())
    depth = effects.shape[1]
    is_wide, width = depth <= WIDE, 4 if depth <= WIDE else 2 if depth <= MIDDLING else 1
    title = title_of(kind, found.settings.window)
    title += ", percentage points" if is_wide else f", tenths of {100 * limit:.3g} points"
    table = Table(box=None, padding=0, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", min_width=2)
    for layer in range(depth):
        name = str(layer) if width > 1 else str(layer % 10)
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    for token, row in enumerate(effects.tolist()):
        is_subject = found.first <= token <= found.last
        name = Text(visible(found.tokens[token]), style="bold" if is_subject else "")
        cells = [name, Text("*" if is_subject else "")]
        for value in row:
            shown = colour(value, limit)
            style = Style(color=ink(shown), bgcolor=hexadecimal(shown))
            shown_value = str(round(100 * value)) if is_wide else _tenth(value, limit)[-width:]
            cells.append(Text(shown_value.rjust(width), style=style))
        table.add_row(*cells)
    return Group(Text(title, style="bold"), table)


def _tenth(value: float, limit: float) -> str:
    tenth = min(9, int(10 * abs(value) / limit)) if limit else 0
    return f"-{tenth}" if value < 0 and tenth else str(tenth)


def lens_table(found: Lens) -> Table:
    """What each block says after the prompt: the likeliest tokens, and the answer's rank."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"After {found.tokens[-1]!r}, by layer", title_justify="left")
    table.add_column("layer", justify="right")
    for name in (f"P({found.answer.strip()})", "rank"):
        table.add_column(name, justify="right")
    table.add_column("top1")
    for layer in reversed(range(len(found.best))):
        pairs = zip(found.best[layer][-1], found.chances[layer, -1].tolist(), strict=True)
        said = "  ".join(f"{visible(name)} {100 * chance:.1f}%" for name, chance in pairs)
        share = 100 * float(found.answer_chances[layer, -1])
        rank = str(int(found.answer_ranks[layer, -1]))
        table.add_row(str(layer), f"{share:.2g}%", rank, Text(said))
    return table
