"""The same maps and curves by matplotlib, for papers and slides: PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emend.errors import MissingExtra
from emend.locate import AverageEffects, Lens, Trace
from emend.report._colours import ABOVE, BELOW, colour, ink, visible
from emend.report._curves import STYLES, curves_of, limits, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS", "Noto Sans", "Symbola"),
)
"""Fonts that have what matplotlib's own have not."""


def blank_figure(width: float, height: float) -> Any:
    """Return an empty figure of some inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "report", "draw PNG and SVG") from error
    # Not through pyplot, which keeps every figure in the process.
    return Figure(figsize=(width, height), layout="constrained")


def _fonts() -> list[str]:
    """Return the fonts for tokens of any script that are installed, the first one always."""
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans Mono", *(name for name in SCRIPTS if name in there)]


def trace_figure(found: Trace) -> Figure:
    """Draw heat maps of tokens by layers, next to each other."""
    kinds = list(found.effects)
    tokens, depth = found.effects[kinds[0]].shape
    each = max(2.4, 0.16 * depth + 0.9)
    figure = blank_figure(1.6 + each * len(kinds), 1.3 + 0.24 * tokens)
    plots = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for number, (kind, plot) in enumerate(zip(kinds, plots, strict=True)):
        effects = found.effects[kind]
        _heat(figure, plot, effects.tolist(), float(effects.abs().max()))
        plot.set_title(title_of(kind, found.settings.window), fontsize=9, wrap=True)
        _layers(plot, depth)
        if number == 0:
            words = [
                visible(word) + ("*" if found.first <= token <= found.last else " ")
                for token, word in enumerate(found.tokens)
            ]
            plot.set_yticks(range(tokens), words, parse_math=False, family=_fonts(), fontsize=9)
    said = f"indirect effect on P({found.answer.strip()}), percentage points"
    approximate = ", approximate" if found.settings.approximate else ""
    figure.supxlabel(f"{said}{approximate}", fontsize=9, parse_math=False)
    return figure


def _heat(figure: Any, plot: Any, values: list[list[float]], limit: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    stops = [[channel / 255 for channel in stop] for stop in (*reversed(BELOW[1:]), *ABOVE)]
    places = [0.5 - 0.5 * n / (len(BELOW) - 1) for n in range(len(BELOW) - 1, 0, -1)]
    places += [0.5 + 0.5 * n / (len(ABOVE) - 1) for n in range(len(ABOVE))]
    ramp = LinearSegmentedColormap.from_list("effects", list(zip(places, stops, strict=True)))
    scale = 100 * limit or 1.0
    shown = [[100 * value for value in row] for row in values]
    image = plot.imshow(shown, aspect="auto", cmap=ramp, vmin=-scale, vmax=scale)
    least = min(min(row) for row in shown)
    bar = figure.colorbar(image, ax=plot, orientation="horizontal", fraction=0.05, pad=0.02)
    bar.ax.set_xlim(least if least < -0.02 * scale else 0, scale)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(axis="x", nbins=4)


def _layers(plot: Any, depth: int) -> None:
    plot.set_xticks(range(0, depth, max(1, depth // 12)))
    plot.tick_params(axis="x", labelsize=8)
    plot.set_xlabel("layer", fontsize=9)


def averages_figure(found: AverageEffects) -> Figure:
    """Draw curves of average effects with intervals, one plot for each kind, three in a row."""
    drawn = {kind: curves_of(found, kind) for kind in found.settings.kinds}
    low, high = limits(drawn.values())
    across, down = min(3, len(drawn)), -(-len(drawn) // 3)
    figure = blank_figure(1.6 + 2.6 * across, 0.4 + 2.6 * down)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    plots = grid.flatten().tolist()
    for plot in plots[len(drawn) :]:
        plot.set_visible(False)
    for (kind, curves), plot in zip(drawn.items(), plots, strict=False):
        for name, (values, margins) in curves.items():
            shade, dash, marker = STYLES[name]
            layers = range(len(values))
            dots = tuple(float(part) / 2 for part in (dash or "").split())
            style = {"linestyle": (0, dots) if dots else "-", "marker": marker}
            shown = [100 * value for value in values]
            plot.plot(layers, shown, color=shade, label=name, markersize=4, **style)
            pairs = list(zip(values, margins, strict=True))
            lower, upper = [100 * (v - m) for v, m in pairs], [100 * (v + m) for v, m in pairs]
            plot.fill_between(layers, lower, upper, color=shade, alpha=0.18, linewidth=0)
        plot.set_title(title_of(kind, found.settings.window), fontsize=9, wrap=True)
        plot.set_ylim(100 * low, 100 * high * 1.03)
        plot.axhline(0, color="#888888", linewidth=0.8)
        _layers(plot, len(next(iter(curves.values()))[0]))
    figure.supylabel("average indirect effect, percentage points", fontsize=9)
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def lens_figure(found: Lens) -> Figure:
    """Draw a table of the most probable token by layer and token, coloured by its probability."""
    depth, length = found.answer_chances.shape
    figure = blank_figure(1.4 + 0.95 * length, 1.2 + 0.32 * depth)
    plot = figure.subplots()
    chances = found.chances[:, :, 0]
    _heat(figure, plot, chances.tolist(), 1.0)
    plot.invert_yaxis()  # the last layer above
    fonts = _fonts()
    for layer in range(depth):
        for token in range(length):
            plot.text(
                *(token, layer, visible(found.best[layer][token][0])[:12]),
                **{"ha": "center", "va": "center", "fontsize": 8, "parse_math": False},
                family=fonts,
                color=ink(colour(float(chances[layer, token]), 1.0)),
            )
    plot.set_yticks(range(depth), [f"layer {layer}" for layer in range(depth)], fontsize=8)
    words = [visible(token) for token in found.tokens]
    plot.set_xticks(range(length), words, parse_math=False, family=fonts, fontsize=8)
    plot.set_title("the most probable token and its probability, percent", fontsize=9)
    return figure


def shares_figure(
    title: str, rows: Sequence[str], columns: Sequence[str], values: list[list[float]]
) -> Figure:
    """Draw a heat map of shares from 0 to 1, with the percentages in its cells.

    Args:
        title: What is shown.
        rows: Names of the rows.
        columns: Names of the columns.
        values: For each row its shares.
    """
    figure = blank_figure(2.6 + 0.95 * len(columns), 1.6 + 0.4 * len(rows))
    plot = figure.subplots()
    _heat(figure, plot, values, 1.0)
    for row, shares in enumerate(values):
        for column, share in enumerate(shares):
            shade = ink(colour(share, 1.0))
            where = {"ha": "center", "va": "center", "fontsize": 8}
            plot.text(column, row, str(round(100 * share)), color=shade, **where)
    plot.set_yticks(range(len(rows)), rows, parse_math=False, fontsize=8)
    plot.set_xticks(range(len(columns)), columns, parse_math=False, fontsize=8, rotation=20)
    plot.set_title(title, fontsize=9, parse_math=False)
    return figure


def trade_off_figure(panels: Mapping[str, Sequence[tuple[str, float, float, float]]]) -> Figure:
    """Draw success against locality, a panel each; a dot's area grows with the seconds.

    Args:
        panels: By title, (name, locality, success, seconds) of each dot.
    """
    figure = blank_figure(1.0 + 4.2 * len(panels), 4.2)
    plots = figure.subplots(1, len(panels), squeeze=False)[0]
    for plot, (title, dots) in zip(plots, panels.items(), strict=True):
        for name, locality, success, seconds in dots:
            plot.scatter(100 * locality, 100 * success, s=40 + 30 * math.log10(1 + seconds))
            place = (100 * locality, 100 * success)
            plot.annotate(name, place, fontsize=8, xytext=(5, 3), textcoords="offset points")
        plot.set(xlim=(-2, 104), ylim=(-2, 104), xlabel="locality, %", title=title)
        plot.set_ylabel("reliability and generalization, %")
    return figure
