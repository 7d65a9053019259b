"""Pages about where a model keeps what it says: one trace, averages over facts, the lens."""

from __future__ import annotations

from typing import Any

from emend.locate import AverageEffects, Lens, Trace
from emend.report import _figures as figures
from emend.report._colours import visible
from emend.report._curves import Curve, curve_plot, curves_of, limits, title_of
from emend.report._heat import Cell, Map, heat_map, switches
from emend.report.markup import Markup, document, element, table
from emend.report.tables import Shade, Table

WIDE, MIDDLING = 16, 32
"""Layers up to which cells of a terminal have four characters, and two; beyond, one."""

LENS_LEAD = "What the output of each block says, read through the final norm and the head."
"""What a lens is, in one sentence."""


def how(approximate: bool, draws: int, noise: float) -> str:
    """Describe how effects were made, in one sentence."""
    way = (
        "Approximate: estimated by gradients (attribution patching)"
        if approximate
        else "Exact: each state was restored and the model run on"
    )
    return f"{way}. Noise of {noise:g} standard deviations, {draws} draws."


def sentence(text: str) -> str:
    """Write a line as a sentence of a page."""
    return f"{text[:1].upper()}{text[1:]}."


def trace_page(found: Trace) -> str:
    """Write the page of one trace."""
    title = element("h1", found.prompt, Markup(" <b>→</b> "), found.answer.strip())
    return document(f"Causal trace: {found.prompt}", [title, *trace_parts(found)], "heat.css")


def trace_parts(found: Trace) -> list[Markup]:
    """Write what a page shows of one trace below its title; it needs heat.css."""
    maps = [_trace_map(found, kind) for kind in found.effects]
    limit = max(one.limit for one in maps)
    settings = found.settings
    lead = (
        f"P({found.answer.strip()!r}) is {100 * found.clean:.1f}%, and "
        f"{100 * found.disturbed:.1f}% with noise at the subject's tokens. "
        "What does restoring one token in one layer bring back?"
    )
    parts = [
        element("p", lead, class_="lead"),
        element("p", how(settings.approximate, settings.draws, settings.noise), class_="note"),
    ]
    if found.caveat:
        parts.append(element("p", sentence(found.caveat), class_="note"))
    if found.answer != found.said:
        note = f"By itself the model says {found.said.strip()!r}."
        parts.append(element("p", note, class_="note"))
    drawn = [heat_map(one, "points", own=one.limit, common=limit) for one in maps]
    parts += [*switches(maps), element("div", *drawn, class_="maps")]
    legend = (
        "Indirect effect in percentage points, tokens by layers. Tokens with a star are the "
        "subject's. A window is that many layers around, restored together."
    )
    parts.append(element("p", legend, class_="legend"))
    return parts


def _trace_map(found: Trace, kind: str) -> Map:
    def cell(token: int, layer: int, value: float) -> Cell:
        hint = f"{visible(found.tokens[token])}, layer {layer}\n{100 * value:+.2f} points"
        return Cell(value, str(round(100 * value)), hint)

    effects = found.effects[kind].tolist()
    rows = [
        (visible(word), found.first <= token <= found.last)
        for token, word in enumerate(found.tokens)
    ]
    cells = [
        [cell(token, layer, value) for layer, value in enumerate(row)]
        for token, row in enumerate(effects)
    ]
    columns = [str(layer) for layer in range(len(effects[0]))]
    return Map(title_of(kind, found.settings.window), columns, rows, cells)


def averages_page(found: AverageEffects) -> str:
    """Write the page of average effects over many facts."""
    total, margin = found.total
    settings = found.settings
    drawn = {kind: curves_of(found, kind) for kind in settings.kinds}
    low, high = limits(drawn.values())
    lead = (
        f"{len(found.traces)} facts. Noise at the subject takes {100 * total:.1f} ± "
        f"{100 * margin:.1f} percentage points off the probability of the answer."
    )
    parts = [
        element("h1", "Where facts are recalled"),
        element("p", lead, class_="lead"),
        element("p", how(settings.approximate, settings.draws, settings.noise), class_="note"),
    ]
    if found.caveat:
        parts.append(element("p", sentence(found.caveat), class_="note"))
    for kind, curves in drawn.items():
        title = title_of(kind, settings.window)
        parts += [element("h2", title), curve_plot(curves, title, low, high)]
        parts.append(element("details", element("summary", "in numbers"), _numbers(curves)))
    legend = "Average indirect effect in percentage points, with intervals of 95%."
    parts.append(element("p", legend, class_="legend"))
    return document("Average causal effects", parts, "heat.css")


def _numbers(curves: dict[str, Curve]) -> Markup:
    count = len(next(iter(curves.values()))[0])
    rows: list[list[object]] = [
        [name, *(f"{100 * v:.1f} ± {100 * m:.1f}" for v, m in zip(values, margins, strict=True))]
        for name, (values, margins) in curves.items()
    ]
    return table(["token", *(f"layer {layer}" for layer in range(count))], rows, "numbers")


def lens_page(found: Lens) -> str:
    """Write the page of a logit lens."""
    said = _lens_map(found, "The most probable token, darker where it is more probable", own=False)
    answer = _lens_map(found, f"Probability of {found.answer.strip()!r}, and its rank", own=True)
    parts = [
        element("h1", found.prompt),
        element("p", LENS_LEAD, class_="lead"),
        element("div", heat_map(said, "%", own=1.0, words=True), class_="maps"),
        element("div", heat_map(answer, "%", own=1.0, words=True), class_="maps"),
    ]
    return document(f"Logit lens: {found.prompt}", parts, "heat.css")


def _lens_map(found: Lens, title: str, *, own: bool) -> Map:
    def cell(layer: int, token: int) -> Cell:
        names, chances = found.best[layer][token], found.chances[layer, token].tolist()
        rank = int(found.answer_ranks[layer, token])
        share = float(found.answer_chances[layer, token])
        lines = [f"{visible(n)}  {100 * c:.1f}%" for n, c in zip(names, chances, strict=True)]
        hint = "\n".join([*lines, f"{visible(found.answer)}  {100 * share:.2g}%, rank {rank}"])
        if own:
            return Cell(share, f"{100 * share:.0f}% #{rank}", hint)
        return Cell(chances[0], visible(names[0]), hint)

    depth, length = found.answer_chances.shape
    cells = [[cell(layer, token) for token in range(length)] for layer in reversed(range(depth))]
    rows = [(f"layer {layer}", False) for layer in reversed(range(depth))]
    return Map(title, [visible(token) for token in found.tokens], rows, cells)


class TraceView:
    """One causal trace."""

    def __init__(self, found: Trace) -> None:
        self.found = found
        self.to_dict = found.to_dict

    def page(self) -> str:
        """Write heat maps."""
        return trace_page(self.found)

    def figure(self) -> Any:
        """Draw heat maps."""
        return figures.trace_figure(self.found)

    def tables(self) -> list[Table]:
        """Return effects in percentage points, tokens by layers, for each kind."""
        return [_trace_table(self.found, kind) for kind in self.found.effects]


def _trace_table(found: Trace, kind: str) -> Table:
    """Fit many layers: a cell then has one digit, in tenths of the largest effect."""
    effects = found.effects[kind]
    limit, depth = float(effects.abs().max()), effects.shape[1]
    is_wide, width = depth <= WIDE, 4 if depth <= WIDE else 2 if depth <= MIDDLING else 1
    scale = ", percentage points" if is_wide else f", tenths of {100 * limit:.3g} points"

    def cell(value: float) -> Shade:
        text = str(round(100 * value)) if is_wide else _tenth(value, limit)[-width:]
        return Shade(text.rjust(width), value, limit)

    names = [str(layer) if width > 1 else str(layer % 10) for layer in range(depth)]
    rows = [
        [visible(word) + "*" * (found.first <= token <= found.last), *map(cell, values)]
        for token, (word, values) in enumerate(zip(found.tokens, effects.tolist(), strict=True))
    ]
    token, layer = found.peak(kind)
    peak = f"{100 * float(effects[token, layer]):.1f} points"
    note = f"most: {found.tokens[token].strip()!r} at layer {layer}, {peak}\n"
    title = title_of(kind, found.settings.window) + scale
    return Table(title, ["", *names], rows, packed=True, note=note)


def _tenth(value: float, limit: float) -> str:
    tenth = min(9, int(10 * abs(value) / limit)) if limit else 0
    return f"-{tenth}" if value < 0 and tenth else str(tenth)


class AveragesView:
    """Average effects over many facts."""

    def __init__(self, found: AverageEffects) -> None:
        self.found = found
        self.to_dict = found.to_dict

    def page(self) -> str:
        """Write curves with intervals."""
        return averages_page(self.found)

    def figure(self) -> Any:
        """Draw curves with intervals."""
        return figures.averages_figure(self.found)

    def tables(self) -> list[Table]:
        """Return effects with intervals, layers by roles, for each kind."""
        return [self._table(kind) for kind in self.found.settings.kinds]

    def _table(self, kind: str) -> Table:
        found = self.found.by_role(kind)
        columns = [
            [
                f"{100 * mean:.1f} ± {100 * margin:.1f}"
                for mean, margin in zip(means.tolist(), margins.tolist(), strict=True)
            ]
            for means, margins, _ in found.values()
        ]
        rows = [[str(layer), *cells] for layer, cells in enumerate(zip(*columns, strict=True))]
        rows.append(["facts", *(str(facts) for _, _, facts in found.values())])
        roles = [role.replace("_", " ") for role in found]
        return Table(f"{kind.replace('_', ' ')}, points ± 95%", ["layer", *roles], rows)


class LensView:
    """A logit lens."""

    def __init__(self, found: Lens) -> None:
        self.found = found
        self.to_dict = found.to_dict

    def page(self) -> str:
        """Write maps of layers by tokens."""
        return lens_page(self.found)

    def figure(self) -> Any:
        """Draw the most probable tokens."""
        return figures.lens_figure(self.found)

    def tables(self) -> list[Table]:
        """Return, after the last token, each layer's most probable tokens and the answer's rank."""
        found = self.found
        rows: list[list[str]] = []
        for layer in reversed(range(len(found.best))):
            pairs = zip(found.best[layer][-1], found.chances[layer, -1].tolist(), strict=True)
            top = "  ".join(f"{visible(name)} {100 * chance:.1f}%" for name, chance in pairs)
            chance = 100 * float(found.answer_chances[layer, -1])
            rank = int(found.answer_ranks[layer, -1])
            rows.append([str(layer), f"{chance:.2g}%", str(rank), top])
        columns = ["layer", f"P({found.answer.strip()})", "rank", "top1"]
        return [Table(f"After {found.tokens[-1]!r}, by layer", columns, rows)]
