"""Heat maps and lens tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend.locate import Lens, Trace
from emend.report._locating import title_of
from emend.report._ramp import colour, hexadecimal, ink, visible

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 16
"""Blocks up to which cells hold numbers of three digits."""


def trace_table(found: Trace, kind: str) -> Table:
    """A heat map of one kind: effects in percentage points, tokens by layers.

    Where there are many layers, a cell has one digit: tenths of the largest effect.
    """
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

    effects = found.effects[kind]
    limit = float(effects.abs().max())
    is_wide = effects.shape[1] <= WIDE
    title = title_of(kind, found.settings.window)
    title += ", percentage points" if is_wide else f", tenths of {100 * limit:.1f} points"
    table = Table(title=title, title_justify="left", box=None, padding=0, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    for layer in range(effects.shape[1]):
        name = str(layer) if is_wide else str(layer % 10)
        table.add_column(name, justify="right", no_wrap=True, min_width=4 if is_wide else 1)
    for token, row in enumerate(effects.tolist()):
        is_subject = found.first <= token <= found.last
        name = visible(found.tokens[token]) + ("* " if is_subject else "  ")
        cells = [Text(name, style="bold" if is_subject else "")]
        for value in row:
            shown = colour(value, limit)
            style = Style(color=ink(shown), bgcolor=hexadecimal(shown))
            cells.append(Text(_number(value, limit, is_wide), style=style))
        table.add_row(*cells)
    return table


def _number(value: float, limit: float, is_wide: bool) -> str:
    if is_wide:
        return f"{100 * value:4.0f}"
    return str(min(9, int(10 * abs(value) / limit))) if limit else "0"


def lens_table(found: Lens) -> Table:
    """What each block says after the prompt: the likeliest tokens, and the answer's rank."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"After {found.tokens[-1]!r}, by layer", title_justify="left")
    table.add_column("layer", justify="right")
    for name in (f"P({found.answer.strip()})", "rank"):
        table.add_column(name, justify="right")
    table.add_column("likeliest")
    for layer in reversed(range(len(found.best))):
        pairs = zip(found.best[layer][-1], found.chances[layer, -1].tolist(), strict=True)
        said = "  ".join(f"{visible(name)} {100 * chance:.1f}%" for name, chance in pairs)
        share = 100 * float(found.answer_chances[layer, -1])
        rank = str(int(found.answer_ranks[layer, -1]))
        table.add_row(str(layer), f"{share:.2g}%", rank, Text(said))
    return table
