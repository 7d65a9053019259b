"""Average effects as curves with their intervals, in SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, isfinite, log10
from typing import NamedTuple

from emend.locate import AverageEffects
from emend.report.markup import Markup, element

TITLES = {
    "state": "Single states",
    "mlp": "MLP",
    "attention": "Attention",
    "severed_mlp": "States, later MLPs severed",
    "severed_attention": "States, later attention severed",
}
"""Kinds of restoration for people."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 52, 150, 12, 40


class Style(NamedTuple):
    """How a role's curve is drawn: distinct in hue, in dash and in marker.

    Attributes:
        colour: One of Okabe and Ito's, which every kind of colour vision tells apart.
        dash: Of the line in SVG; None for a whole one.
        marker: Of its points, as matplotlib has it.
    """

    colour: str
    dash: str | None
    marker: str


STYLES = {
    "first subject": Style("#56b4e9", "7 4", "o"),
    "middle subject": Style("#009e73", "7 4", "^"),
    "last subject": Style("#d55e00", None, "s"),
    "first after": Style("#cc79a7", "2 3", "D"),
    "further": Style("#4d4d4d", "2 3", "x"),
    "last token": Style("#0072b2", None, "v"),
}
"""By role, so that one is drawn alike in every plot."""

Curve = tuple[Sequence[float], Sequence[float]]
"""Values by layer, and half of their intervals."""


def title_of(kind: str, window: int) -> str:
    """Write the title of a map of one kind."""
    around = f", window of {window}" if kind in ("mlp", "attention") else ""
    return TITLES[kind] + around


def curves_of(found: AverageEffects, kind: str) -> dict[str, Curve]:
    """Return values and margins by layer for each role, by its name for people."""
    return {
        role.replace("_", " "): (mean.mean.tolist(), mean.margin.tolist())
        for role, mean in found.by_role(kind).items()
    }


def limits(plots: Iterable[Mapping[str, Curve]]) -> tuple[float, float]:
    """Return the least and the largest value of all curves with intervals; 0 is between."""
    ends = [0.0]
    for values, margins in (curve for plot in plots for curve in plot.values()):
        for value, margin in zip(values, margins, strict=True):
            room = margin if isfinite(margin) else 0.0
            ends += [value - room, value + room]
    return min(ends), max(ends)


def curve_plot(curves: Mapping[str, Curve], title: str, low: float, high: float) -> Markup:
    """Draw curves over layers with shaded intervals; pointing at a dot shows its value.

    Args:
        curves: By role, one of `STYLES`, in the order of the legend.
        title: What is read out for it.
        low: The least value of the axis.
        high: The largest.
    """
    count = len(next(iter(curves.values()))[0])

    def x(layer: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * layer / max(count - 1, 1), 1)

    def y(value: float) -> float:
        share = (value - low) / ((high - low) or 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    rows = [(y(value), f"{100 * value:.6g}") for value in ticks(low, high)]
    columns = [(x(layer), str(layer)) for layer in range(0, count, max(1, count // 16))]
    parts = [element("title", title), *_axes(rows, columns, "layer")]
    if low < 0 < high:
        ends = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": y(0), "y2": y(0)}
        parts.append(element("line", **ends, class_="axis"))
    for number, (name, (values, margins)) in enumerate(curves.items()):
        stroke, dash, _ = STYLES[name]
        edge = [(layer, v + m) for layer, (v, m) in enumerate(zip(values, margins, strict=True))]
        edge += [(layer, values[layer] - margins[layer]) for layer in reversed(range(count))]
        if all(isfinite(value) for _, value in edge):
            points = " ".join(f"{x(layer)},{y(value)}" for layer, value in edge)
            parts.append(element("polygon", points=points, fill=stroke, class_="band"))
        path = " ".join(f"{x(layer)},{y(value)}" for layer, value in enumerate(values))
        parts.append(
            element("polyline", points=path, stroke=stroke, stroke_dasharray=dash, class_="line")
        )
        for layer, (value, margin) in enumerate(zip(values, margins, strict=True)):
            hint = f"{name}, layer {layer}: {100 * value:.1f} ± {100 * margin:.1f}"
            dot = {"cx": x(layer), "cy": y(value), "r": 3.5, "fill": stroke}
            parts.append(element("circle", element("title", hint), **dot))
        parts += _legend(number, name, STYLES[name])
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="plot curves")


class Axis(NamedTuple):
    """The axes of a `line_plot`.

    Attributes:
        caption: What is below it.
        places: Where the points are, ascending.
        low: The least value.
        high: The largest.
        mark: A place that is marked by an upright line.
    """

    caption: str
    places: Sequence[float]
    low: float
    high: float
    mark: float


def line_plot(
    curves: Mapping[str, Sequence[float]], styles: Sequence[Style], title: str, axis: Axis
) -> Markup:
    """Draw curves over numbers; pointing at a dot shows its value.

    Args:
        curves: A value for each of the axis's places, by name, in the order of the legend.
        styles: Of each curve.
        title: What is read out for it.
        axis: The axes.
    """
    first, last = axis.places[0], axis.places[-1]

    def x(place: float) -> float:
        share = (place - first) / ((last - first) or 1.0)
        return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)

    def y(value: float) -> float:
        share = (value - axis.low) / ((axis.high - axis.low) or 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    rows = [(y(value), f"{value:.6g}") for value in ticks(axis.low, axis.high)]
    columns = [(x(place), f"{place:g}") for place in ticks(first, last)]
    parts = [element("title", title), *_axes(rows, columns, axis.caption)]
    mark = {"x1": x(axis.mark), "x2": x(axis.mark), "y1": TOP, "y2": HEIGHT - BOTTOM}
    parts.append(element("line", **mark, class_="axis"))
    for number, (name, values) in enumerate(curves.items()):
        style = styles[number]
        shown = list(zip(axis.places, values, strict=True))
        path = " ".join(f"{x(place)},{y(value)}" for place, value in shown)
        line = {"stroke": style.colour, "stroke_dasharray": style.dash, "class_": "line"}
        parts.append(element("polyline", points=path, **line))
        for place, value in shown:
            hint = element("title", f"{name}, {axis.caption} {place:g}: {value:.6g}")
            dot = {"cx": x(place), "cy": y(value), "r": 3.5, "fill": style.colour}
            parts.append(element("circle", hint, **dot))
        parts += _legend(number, name, style)
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="plot curves")


def _legend(number: int, name: str, style: Style) -> list[Markup]:
    place = TOP + 14 + 20 * number
    ends = {"x1": WIDTH - RIGHT + 16, "x2": WIDTH - RIGHT + 40, "y1": place, "y2": place}
    line = {"stroke": style.colour, "stroke_width": 2.5, "stroke_dasharray": style.dash}
    return [
        element("line", **ends, **line),
        element("text", name, x=WIDTH - RIGHT + 46, y=place + 4),
    ]


def _axes(
    rows: Sequence[tuple[float, str]], columns: Sequence[tuple[float, str]], caption: str
) -> list[Markup]:
    """Draw the grid's lines with labels at the left, labels below, and what these are."""
    parts: list[Markup] = []
    for place, label in rows:
        ends = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": place, "y2": place}
        parts.append(element("line", **ends, class_="grid"))
        aside = {"x": LEFT - 8, "y": place + 4, "text_anchor": "end", "class_": "tick"}
        parts.append(element("text", label, **aside))
    for place, label in columns:
        below = {"x": place, "y": HEIGHT - BOTTOM + 16, "text_anchor": "middle"}
        parts.append(element("text", label, **below, class_="tick"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", caption, x=middle, y=HEIGHT - 6, text_anchor="middle"))
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Choose ticks from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / 6
    power = 10.0 ** floor(log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    first = -floor(-low / step + 1e-9)
    return [round(number * step, 12) for number in range(first, floor(high / step + 1e-9) + 1)]
