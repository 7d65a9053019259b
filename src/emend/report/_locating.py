"""Pages about where a model keeps what it says: one trace, averages over facts, the lens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite

from emend.locate import AverageEffects, Lens, Trace
from emend.report._curves import Curve, curve_plot
from emend.report._document import document
from emend.report._heat import Cell, Map, heat_map, switches
from emend.report._markup import Markup, element, table
from emend.report._ramp import visible

TITLES = {
    "state": "Single states",
    "mlp": "MLP",
    "attention": "Attention",
    "severed_mlp": "States, later MLPs severed",
    "severed_attention": "States, later attention severed",
}
"""Kinds of restoration for people."""

LENS_LEAD = "What the output of each block says, read through the final norm and the head."
"""What a lens is, in one sentence."""


def title_of(kind: str, window: int) -> str:
    """What stands above a map of one kind."""
    around = f", window of {window}" if kind in ("mlp", "attention") else ""
    return TITLES[kind] + around


def how(approximate: bool, draws: int, noise: float) -> str:
    """How effects were made, in one sentence."""
    way = (
        "Approximate: estimated by gradients (attribution patching)"
        if approximate
        else "Exact: each state was restored and the model run on"
    )
    return f"{way}. Noise of {noise:g} standard deviations, {draws} draws."


def sentence(text: str) -> str:
    """A line as a sentence of a page."""
    return f"{text[:1].upper()}{text[1:]}."


def trace_page(found: Trace) -> str:
    """The page of one trace."""
    maps = [_trace_map(found, kind) for kind in found.effects]
    limit = max(one.limit for one in maps)
    settings = found.settings
    lead = (
        f"P({found.answer.strip()!r}) is {100 * found.clean:.1f}%, and "
        f"{100 * found.disturbed:.1f}% with noise at the subject's tokens. "
        "What does restoring one token in one layer bring back?"
    )
    parts = [
        element("h1", found.prompt, Markup(" <b>→</b> "), found.answer.strip()),
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
        "subject's. A window is so many layers around, restored together."
    )
    parts.append(element("p", legend, class_="legend"))
    return document(f"Causal trace: {found.prompt}", parts, "heat.css")


def _trace_map(found: Trace, kind: str) -> Map:
    def cell(token: int, layer: int, value: float) -> Cell:
        told = f"{visible(found.tokens[token])}, layer {layer}\n{100 * value:+.2f} points"
        return Cell(value, str(round(100 * value)), told)

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


def curves_of(found: AverageEffects, kind: str) -> dict[str, Curve]:
    """Values and margins by layer for each role, by its name for people."""
    return {
        role.replace("_", " "): (mean.mean.tolist(), mean.margin.tolist())
        for role, mean in found.by_role(kind).items()
    }


def averages_page(found: AverageEffects) -> str:
    """The page of average effects over many facts."""
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


def limits(plots: Iterable[Mapping[str, Curve]]) -> tuple[float, float]:
    """The least and the largest value of all curves with their intervals; 0 is between."""
    ends = [0.0]
    for values, margins in (curve for plot in plots for curve in plot.values()):
        for value, margin in zip(values, margins, strict=True):
            room = margin if isfinite(margin) else 0.0
            ends += [value - room, value + room]
    return min(ends), max(ends)


def _numbers(curves: dict[str, Curve]) -> Markup:
    count = len(next(iter(curves.values()))[0])
    rows: list[list[object]] = [
        [name, *(f"{100 * v:.1f} ± {100 * m:.1f}" for v, m in zip(values, margins, strict=True))]
        for name, (values, margins) in curves.items()
    ]
    return table(["token", *(f"layer {layer}" for layer in range(count))], rows, "numbers")


def lens_page(found: Lens) -> str:
    """The page of a logit lens."""
    said = _lens_map(found, "The likeliest token, darker where it is more probable", own=False)
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
        told = "\n".join([*lines, f"{visible(found.answer)}  {100 * share:.2g}%, rank {rank}"])
        if own:
            return Cell(share, f"{100 * share:.0f}% #{rank}", told)
        return Cell(chances[0], visible(names[0]), told)

    depth, length = found.answer_chances.shape
    cells = [[cell(layer, token) for token in range(length)] for layer in reversed(range(depth))]
    rows = [(f"layer {layer}", False) for layer in reversed(range(depth))]
    return Map(title, [visible(token) for token in found.tokens], rows, cells)
