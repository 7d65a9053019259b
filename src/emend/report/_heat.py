"""Heat maps as HTML tables: pointing at a cell tells its value, switches show numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from emend.report._markup import Markup, element
from emend.report._ramp import ABOVE, BELOW, colour, hexadecimal, ink


class Cell(NamedTuple):
    """One cell of a map.

    Attributes:
        value: What its colour shows.
        text: What stands in it.
        told: What pointing at it tells; line breaks are kept.
    """

    value: float
    text: str
    told: str


class Map(NamedTuple):
    """One heat map.

    Attributes:
        title: What stands above it.
        columns: What stands above each column.
        rows: What stands before each row, and whether it is marked.
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


def heat_map(shown: Map, limit: float, *, words: bool = False, unit: str = "") -> Markup:
    """A heat map in two scales: its own, and that of ``limit``.

    Args:
        shown: The map.
        limit: The largest value of all maps on the page.
        words: Whether its cells hold words, which are always shown.
        unit: Of the values on the scale, "%" multiplies them by 100.
    """
    head = element("tr", element("td"), *(element("th", one, scope="col") for one in shown.columns))
    body = [
        element(
            "tr",
            element("th", name, scope="row", class_="subject" if marked else None),
            *(_cell(cell, shown.limit, limit) for cell in cells),
        )
        for (name, marked), cells in zip(shown.rows, shown.cells, strict=True)
    ]
    return element(
        "figure",
        element("figcaption", shown.title),
        element(
            "table",
            element("thead", head),
            element("tbody", *body),
            class_="heat words" if words else "heat",
        ),
        _scale(shown, unit),
    )


def switches() -> list[Markup]:
    """Boxes that show numbers, and one scale for all maps; maps stand after them."""
    return [
        Markup('<input type="checkbox" id="numbers" class="switch">'),
        element("label", "numbers in the cells", for_="numbers"),
        Markup('<input type="checkbox" id="same" class="switch">'),
        element("label", "one scale for all maps", for_="same"),
    ]


def _cell(cell: Cell, own: float, limit: float) -> Markup:
    mine, common = colour(cell.value, own), colour(cell.value, limit)
    style = (
        f"--own:{hexadecimal(mine)};--own-ink:{ink(mine)};"
        f"--all:{hexadecimal(common)};--all-ink:{ink(common)}"
    )
    parts = (element("b", cell.text), element("i", cell.told))
    return element("td", *parts, style=style, tabindex=0)


def _scale(shown: Map, unit: str) -> Markup:
    least = min((cell.value for row in shown.cells for cell in row), default=0.0)
    has_less = least < -0.02 * shown.limit
    stops = [*reversed(BELOW[1:]), *ABOVE] if has_less else list(ABOVE)
    ramp = ", ".join(hexadecimal(stop) for stop in stops)
    factor = 100 if unit == "%" else 1
    low = -shown.limit if has_less else 0.0
    bar = element("span", class_="bar", style=f"background:linear-gradient(90deg, {ramp})")
    texts = (f"{factor * value:.3g}{unit}" for value in (low, shown.limit))
    first, last = (element("span", text) for text in texts)
    return element("div", first, bar, last, class_="scale")
