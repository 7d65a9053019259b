"""The scale of a vector: target and control metrics over the grid, as curves and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emend.arithmetic import Tuning
from emend.report._curves import STYLES, Axis, Style, line_plot
from emend.report._figures import blank_figure
from emend.report.markup import Markup, document, element, table
from emend.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGET, CONTROL = "target metric", "control metric"


class ScalesView:
    """A tuned scale; see `View`."""

    def __init__(self, found: Tuning) -> None:
        self.found = found

    def tables(self) -> Sequence[Table]:
        """Return a row for each scale; the chosen one has a star."""
        names = [*self.found.chosen.targets, *self._controls()]
        rows = [
            [
                f"{point.scale:g}{' *' if point.scale == self.found.scale else ''}",
                *(f"{value:.4g}" for value in point.targets.values()),
                *(f"{point.control:.4g}" for _ in self._controls()),
            ]
            for point in self.found.points
        ]
        return [Table(self._sentence(), ["scale", *names], rows)]

    def page(self) -> str:
        """Write one page: a plot for each kind of metric, and the table."""
        parts = [
            element("h1", f"Scale {self.found.scale:g}"),
            element("p", self._sentence(), class_="lead"),
        ]
        for title, curves in self._plots().items():
            axis = self._axis(curves)
            parts += [element("h2", title), line_plot(curves, _styles(curves), title, axis)]
        found = self.tables()[0]
        head: list[object] = [*found.columns]
        parts.append(table(head, [[*row] for row in found.rows], "numbers"))
        return document(f"Scale {self.found.scale:g}", [Markup(part) for part in parts], "heat.css")

    def figure(self) -> Figure:
        """Draw the same plots by matplotlib, next to each other."""
        plots = self._plots()
        figure = blank_figure(4.4 * len(plots), 3.2)
        axes: Any = figure.subplots(1, len(plots), squeeze=False)[0]
        scales = [point.scale for point in self.found.points]
        for (title, curves), plot in zip(plots.items(), axes, strict=True):
            for (name, values), style in zip(curves.items(), _styles(curves), strict=True):
                plot.plot(scales, values, color=style.colour, marker=style.marker, label=name)
            plot.axvline(self.found.scale, color="#888888", linewidth=0.8)
            plot.set(title=title, xlabel="scale")
            plot.legend(fontsize=8)
        return figure

    def to_dict(self) -> Mapping[str, Any]:
        """Return plain data."""
        return self.found.to_dict()

    def _controls(self) -> list[str]:
        return [self.found.control] if self.found.control else []

    def _sentence(self) -> str:
        found = self.found
        if found.goal == "addition":
            return f"scale {found.scale:g} has the best mean of the target metrics"
        side = "at most" if found.lower_is_better[found.control] else "at least"
        bound = f"{side} {found.bound:.4g}"
        return f"scale {found.scale:g} is the largest whose {found.control} is {bound}"

    def _plots(self) -> dict[str, dict[str, list[float]]]:
        """Return the curves of each plot: metrics of other units have axes of their own."""
        points = self.found.points
        targets = {name: [one.targets[name] for one in points] for name in points[0].targets}
        controls = {name: [one.control or 0.0 for one in points] for name in self._controls()}
        return {title: c for title, c in ((TARGET, targets), (CONTROL, controls)) if c}

    def _axis(self, curves: Mapping[str, Sequence[float]]) -> Axis:
        values = [value for curve in curves.values() for value in curve]
        places = [point.scale for point in self.found.points]
        return Axis("scale", places, min(values), max(values), mark=self.found.scale)


def _styles(curves: Mapping[str, Any]) -> list[Style]:
    """Return a style for each curve, distinct in hue and marker."""
    styles = [*STYLES.values()]
    return [styles[number % len(styles)] for number in range(len(curves))]
