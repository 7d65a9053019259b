"""The two plots, as SVG that takes its colours from the page's style (light or dark)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from emend.report._results import share
from emend.report.markup import Markup, element

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _BOTTOM = 460, 132, 66, 30, 8, 26


class Row(NamedTuple):
    """One line of a plot; values are shares from 0 to 1, None where nothing was asked."""

    label: str
    before: float | None
    after: float | None


Draw: TypeAlias = Callable[[float, float, float], list[Markup]]
"""Draws one row from its value before, its value after and its height on the page."""


def dot_plot(rows: Sequence[Row], title: str) -> Markup:
    """Draw before (ring) and after (disc) of each row, joined by a line, from 0 to 100%."""
    return _figure(rows, title, _dots)


def bar_plot(rows: Sequence[Row], title: str) -> Markup:
    """Draw after as a bar and before as an upright mark, from 0 to 100%."""
    return _figure(rows, title, _bar)


def _figure(rows: Sequence[Row], title: str, draw: Draw) -> Markup:
    height = _TOP + _ROW * len(rows) + _BOTTOM
    drawn = [_line(row, _TOP + _ROW * (i + 0.5), draw) for i, row in enumerate(rows)]
    spoken = "; ".join(f"{r.label}: {share(r.before)} to {share(r.after)}" for r in rows)
    return element(
        "svg",
        element("title", f"{title}. {spoken}"),
        *_grid(height),
        *drawn,
        viewBox=f"0 0 {_WIDTH} {height}",
        role="img",
        class_="plot",
    )


def _x(value: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value, 1)


def _grid(height: int) -> list[Markup]:
    parts: list[Markup] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _x(tick)
        parts.append(element("line", x1=x, x2=x, y1=_TOP, y2=height - _BOTTOM, class_="grid"))
        label = f"{tick:.0%}"
        parts.append(element("text", label, x=x, y=height - 8, text_anchor="middle", class_="tick"))
    return parts


def _line(row: Row, y: float, draw: Draw) -> Markup:
    parts = [element("text", row.label, x=_LEFT - 10, y=y + 4, text_anchor="end")]
    if row.after is None:
        parts.append(element("text", "not asked", x=_x(0) + 6, y=y + 4, class_="tick"))
    else:
        parts += draw(row.before or 0.0, row.after, y)
        value = share(row.after)
        parts.append(element("text", value, x=_WIDTH - 2, y=y + 4, text_anchor="end"))
    return element("g", *parts)


def _dots(before: float, after: float, y: float) -> list[Markup]:
    return [
        element("line", x1=_x(before), x2=_x(after), y1=y, y2=y, class_="change"),
        element("circle", cx=_x(before), cy=y, r=5, class_="before"),
        element("circle", cx=_x(after), cy=y, r=6, class_="after"),
    ]


def _bar(before: float, after: float, y: float) -> list[Markup]:
    width = round(_x(after) - _x(0), 1)
    return [
        element("rect", x=_x(0), y=y - 8, width=width, height=16, rx=2, class_="after"),
        element("line", x1=_x(before), x2=_x(before), y1=y - 12, y2=y + 12, class_="mark"),
    ]
