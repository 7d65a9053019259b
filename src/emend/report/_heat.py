"""Heat maps as HTML tables: pointing at a cell tells its value, switches show numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from emend.report._colours import ABOVE, BELOW, colour, hexadecimal, ink
from emend.report.markup import Markup, element


class Cell(NamedTuple):
    """One cell of a map.

    Attributes:
        value: What its colour shows.
        text: What is written in it.
        hint: What pointing at it shows; line breaks are preserved.
    """

    value: float
    text: str
    hint: str


class Map(NamedTuple):
    """One heat map.

    Attributes:
        title: Its title.
        columns: Names of the columns.
        rows: Names of the rows, and whether each is marked.
        cells: For each row its cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, bool]]
    cells: Sequence[Sequence[Cell]]

    @property
    def limit(self) -> float:
        """The largest value."""
        return max((abs(cell.value) for row in self.cells for cell in row), default=0.0)


UNITS = {"%": "%", "points": " points"}
"""Units of values on a scale, which are written in hundredths."""

MANY = 16
"""Columns up to which a map has room for numbers in its cells and above each."""


def heat_map(
    shown: Map, unit: str, *, own: float, common: float | None = None, words: bool = False
) -> Markup:
    """Write a heat map in two scales; a switch of the page selects one.

    Args:
        shown: The map.
        unit: Of its values, one of `UNITS`.
        own: The value that is darkest.
        common: The same while all maps of the page share one scale; None for no such scale.
        words: Whether its cells hold words, which are always shown.
    """
    is_narrow = len(shown.columns) > MANY and not words
    titles = [_column(name, is_narrow and n % 4 > 0) for n, name in enumerate(shown.columns)]
    body = [
        element(
            "tr",
            element("th", name, scope="row", class_="subject" if marked else None),
            *(_cell(cell, own, common or own) for cell in cells),
        )
        for (name, marked), cells in zip(shown.rows, shown.cells, strict=True)
    ]
    kinds = "heat words" if words else "heat narrow" if is_narrow else "heat"
    return element(
        "figure",
        element("figcaption", shown.title),
        element(
            "table",
            element("thead", element("tr", element("td"), *titles)),
            element("tbody", *body),
            class_=kinds,
        ),
        _scale(shown, own, unit, "own"),
        *([] if common is None else [_scale(shown, common, unit, "all")]),
    )


def _column(name: str, is_bare: bool) -> Markup:
    return element("th", "" if is_bare else element("span", name), scope="col")


def switches(maps: Sequence[Map]) -> list[Markup]:
    """Write the switches for numbers in cells and for one common scale; the maps follow them."""
    has_room = any(len(one.columns) <= MANY for one in maps)
    return [
        *(_switch("numbers", "numbers in the cells") if has_room else []),
        *(_switch("same", "one scale for all maps") if len(maps) > 1 else []),
    ]


def _switch(name: str, said: str) -> list[Markup]:
    box = Markup(f'<input type="checkbox" id="{name}" class="switch">')
    return [box, element("label", said, for_=name)]


def _cell(cell: Cell, own: float, limit: float) -> Markup:
    mine, common = colour(cell.value, own), colour(cell.value, limit)
    style = (
        f"--own:{hexadecimal(mine)};--own-ink:{ink(mine)};"
        f"--all:{hexadecimal(common)};--all-ink:{ink(common)}"
    )
    parts = (element("b", cell.text), element("i", cell.hint))
    return element("td", *parts, style=style, tabindex=0)


def _scale(shown: Map, limit: float, unit: str, name: str) -> Markup:
    least = min((cell.value for row in shown.cells for cell in row), default=0.0)
    has_less = least < -0.02 * limit
    stops = [*reversed(BELOW[1:]), *ABOVE] if has_less else list(ABOVE)
    ramp = ", ".join(hexadecimal(stop) for stop in stops)
    bar = element("span", class_="bar", style=f"background:linear-gradient(90deg, {ramp})")
    low, high = (f"{100 * value:.3g}" for value in (-limit if has_less else 0.0, limit))
    ends = element("span", low), element("span", high + UNITS[unit])
    return element("div", ends[0], bar, ends[1], class_=f"scale {name}")
