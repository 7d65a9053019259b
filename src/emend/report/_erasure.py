"""Pages about erasures: what each attack finds before and after each defence."""

from __future__ import annotations

from typing import Any

from emend.erasure import AttackReport, DefenceReport
from emend.report import _figures as figures
from emend.report._heat import Cell, Map, heat_map, switches
from emend.report.markup import document, element, table
from emend.report.tables import Shade, Table

TITLE = "What attacks find"


class ErasureView:
    """Attacks on one model, in one state or in several.

    Args:
        found: The states; a report of one is shown as the state "attacked".
        title: Heading of the page.
    """

    def __init__(self, found: DefenceReport | AttackReport, title: str | None = None) -> None:
        self.to_dict = found.to_dict
        several = isinstance(found, DefenceReport)
        self.found = found if several else DefenceReport({"attacked": found})
        self.title = title or TITLE

    def tables(self) -> list[Table]:
        """Return rates with intervals, states by attacks, and how each spent its budget."""
        found = self.found
        rows: list[list[str | Shade]] = [[*row] for row in found.rows()]
        for row, state in zip(rows, found.states, strict=False):
            for place, column in enumerate(found.columns, start=1):
                rate = found.rate(state, column)
                if rate is not None and rate.share is not None:
                    row[place] = Shade(rate.text(), rate.share, 1.0)
        columns = ["", *map(_spaced, found.columns), *found.measured]
        rates = Table(self.title, columns, rows, note=found.note())
        return [rates, Table("How", ["attack", "candidates", "seconds"], self._how())]

    def page(self) -> str:
        """Write a heat map of states by attacks, and the numbers with their intervals."""
        found, shown = self.found, self._map()
        numbers, how = self.tables()
        parts = [
            element("h1", self.title),
            element("p", f"Share of secrets found, {found.note()}.", class_="lead"),
            *(element("p", f"{name}: {value}", class_="note") for name, value in _about(found)),
            *switches([shown]),
            element("div", heat_map(shown, "%", own=1.0), class_="maps"),
            element("h2", "In numbers, with intervals of 95%"),
            table([*numbers.columns], [[*map(_words, row)] for row in numbers.rows], "numbers"),
            element("h2", "How each attack names its candidates"),
            table([*how.columns], [[*map(_words, row)] for row in how.rows]),
        ]
        return document(self.title, parts, "heat.css")

    def figure(self) -> Any:
        """Draw the heat map."""
        shown = self._map()
        names = [name for name, _ in shown.rows]
        values = [[cell.value for cell in row] for row in shown.cells]
        return figures.shares_figure(self.title, names, shown.columns, values)

    def _map(self) -> Map:
        found = self.found
        cells = [[self._cell(state, column) for column in found.columns] for state in found.states]
        rows = [(state, False) for state in found.states]
        return Map(self.title, [*map(_spaced, found.columns)], rows, cells)

    def _cell(self, state: str, column: str) -> Cell:
        rate = self.found.rate(state, column)
        if rate is None or rate.share is None:
            return Cell(0.0, "–", f"{state}, {_spaced(column)}\nnot run")
        hint = f"{state}, {_spaced(column)}\n{rate.found} of {rate.of}: {rate.text()}"
        return Cell(rate.share, str(round(100 * rate.share)), hint)

    def _how(self) -> list[list[str]]:
        first = next(iter(self.found.states.values()))
        return [[_spaced(row[0]), row[-1], row[-2]] for row in first.rows() if row[-1]]


def _about(found: DefenceReport) -> list[tuple[str, Any]]:
    return list(found.about.items())


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _words(cell: str | Shade) -> str:
    return cell if isinstance(cell, str) else cell.text
