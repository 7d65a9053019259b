"""Pages about benchmarks: a leaderboard for each dataset and schedule, and what success costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emend.bench import Expected
from emend.bench.leaderboard import COLUMNS, Board, Interval, Point
from emend.report import _figures as figures
from emend.report._results import plain, share
from emend.report.markup import Markup, document, element, joined, table
from emend.report.tables import Table

WIDTH, HEIGHT, MARGIN = 520, 320, 46
"""Pixels of the trade-off plot."""

FACTOR = 10.0
"""Relative change of perplexity from which on it is shown as a factor."""

CASES = 40
"""Edits of a point that the page shows one by one."""


class BenchView:
    """A results folder of `emend bench`.

    Args:
        board: Its results.
        title: Heading of the page.
    """

    def __init__(self, board: Board, title: str | None = None) -> None:
        self.board = board
        self.title = title or "Benchmark"
        self.to_dict = board.to_dict

    def tables(self) -> list[Table]:
        """Return a leaderboard and the dataset's own scores, for each dataset and schedule."""
        return [
            one
            for (dataset, schedule), points in self._groups().items()
            for one in (
                _board(dataset, schedule, points),
                *_further(dataset, schedule, points),
                *self._expected(dataset, schedule, points),
            )
        ]

    def page(self) -> str:
        """Write leaderboards with intervals, a trade-off plot, curves and cases."""
        parts = [
            element("h1", self.title),
            element("p", f"run {self.board.hash}; intervals of 95% by bootstrap over edits"),
        ]
        for (dataset, schedule), points in self._groups().items():
            parts += _shown("h2", _board(dataset, schedule, points))
            further = _further(dataset, schedule, points)
            for one in (*further, *self._expected(dataset, schedule, points)):
                parts += _shown("h3", one)
            parts += [_trade_off(points), *_curves(points), *map(_cases, points)]
        return document(self.title, parts)

    def _expected(self, dataset: str, schedule: str, points: Sequence[Point]) -> list[Table]:
        """Make the table of published numbers, next to those measured, where there are some."""
        chosen = [
            one
            for one in self.board.expected
            if (one.dataset, one.schedule) == (dataset, schedule) and one.values
        ]
        if not chosen:
            return []
        names = list(dict.fromkeys(name for one in chosen for name in one.values))
        rows = [
            [one.method, point.model, *(_compared(name, one, point) for name in names)]
            for one in chosen
            for point in points
            if point.method == one.method
        ]
        sources = "; ".join(dict.fromkeys(one.source for one in chosen))
        recalled = any(one.recalled for one in chosen)
        mark = "; † recalled from memory, not read in the source" if recalled else ""
        note = f"measured here / published: {sources}{mark}"
        title = f"{dataset}, {schedule}: next to published numbers"
        return [Table(title, ["method", "model here", *names], rows, note=note)] if rows else []

    def figure(self) -> Any:
        """Draw success against locality, a panel for each dataset and schedule."""
        panels = {
            f"{dataset}, {schedule}": [
                (f"{point.method} ({point.model})", *values)
                for point in points
                if (values := _place(point)) is not None
            ]
            for (dataset, schedule), points in self._groups().items()
        }
        return figures.trade_off_figure(panels)

    def _groups(self) -> dict[tuple[str, str], list[Point]]:
        groups: dict[tuple[str, str], list[Point]] = {}
        for point in self.board.points:
            groups.setdefault((point.dataset, point.schedule), []).append(point)
        return {name: sorted(points, key=_score, reverse=True) for name, points in groups.items()}


def _board(dataset: str, schedule: str, points: Sequence[Point]) -> Table:
    """Make the leaderboard of a dataset and schedule, the best first."""
    return Table(
        f"{dataset}, {schedule}",
        ["model", "method", "edits", *COLUMNS, "perplexity", "s / edit", "CPU s / edit"],
        [_row(point) for point in points],
        note="; ".join(
            [
                "CPU s with evaluation",
                *(f"{point.method}: {point.errors[0]}" for point in _failed(points)),
            ]
        ),
    )


def _further(dataset: str, schedule: str, points: Sequence[Point]) -> list[Table]:
    """Make the tables of the dataset's own scores and of tasks, where there are any."""
    title = f"{dataset}, {schedule}"
    brackets = "in brackets before the edits"
    found = [
        _scores(
            *(f"{title}: its own scores", points, [point.published for point in points]),
            f"as the dataset's paper defines them, with intervals of 95%; {brackets}",
            [point.published_intervals for point in points],
        ),
        _scores(
            *(f"{title}: realistic evaluation", points, [point.realistic for point in points]),
            f"free generation up to a full stop or line break; {brackets}",
        ),
        _scores(
            *(f"{title}: general ability", points, [point.tasks for point in points]),
            f"tasks of lm-evaluation-harness; {brackets}",
        ),
        _side_effects(f"{title}: side effects", points),
    ]
    return [one for one in found if one is not None]


def _scores(
    title: str,
    points: Sequence[Point],
    values: Sequence[Mapping[str, Mapping[str, float | None]]],
    note: str,
    intervals: Sequence[Mapping[str, Interval]] | None = None,
) -> Table | None:
    """Make a table of further values of points by name; None where there are none."""
    names = list(dict.fromkeys(name for one in values for name in one))
    if not names:
        return None
    rows = [
        [
            *(point.model, point.method, str(point.edits)),
            *(_score_text(name, one.get(name), around.get(name)) for name in names),
        ]
        for point, one, around in zip(points, values, intervals or [{}] * len(points), strict=True)
    ]
    return Table(title, ["model", "method", "edits", *names], rows, note=note)


def _side_effects(title: str, points: Sequence[Point]) -> Table | None:
    """Make the table of subject drift and of probes whose answers changed."""
    found = [point for point in points if point.drift or point.changed]
    if not found:
        return None
    kinds = list(dict.fromkeys(kind for point in found for kind in point.changed))
    rows = [
        [
            *(point.model, point.method, str(point.edits), _nats(point.drift)),
            *(_part(*point.changed.get(kind, (0, 0))) for kind in kinds),
        ]
        for point in found
    ]
    columns = ["model", "method", "edits", "drift", *(f"{kind} changed" for kind in kinds)]
    note = "drift of what the model states of the subjects, nats a token; probes made by emend"
    return Table(title, columns, rows, note=note)


def _nats(found: Interval | None) -> str:
    return "–" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _part(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "–"


def _compared(name: str, expected: Expected, point: Point) -> str:
    """Write a score as measured and as published."""
    if name not in expected.values:
        return "–"
    own = point.published.get(name)
    ours = "–" if own is None else _score_text(name, {"after": own["after"]})
    mark = "†" if expected.recalled else ""
    return f"{ours} / {_score_text(name, {'after': expected.values[name]})}{mark}"


_NO_SHARES = ("fluency", "perplexity")
"""Parts of names of scores that are no shares."""


def _score_text(
    name: str, score: Mapping[str, float | None] | None, around: Interval | None = None
) -> str:
    if score is None:
        return "–"
    is_share = not any(part in name for part in _NO_SHARES)
    shown = share if is_share else plain
    before, unit = score.get("before"), 100 if is_share else 1
    ends = "" if around is None else f" [{unit * around.low:.0f}, {unit * around.high:.0f}]"
    return shown(score["after"]) + ends + ("" if before is None else f" ({shown(before)})")


def _shown(heading: str, shown: Table) -> list[Markup]:
    rows: list[list[object]] = [[*row] for row in shown.rows]
    parts = [element(heading, shown.title), table([*shown.columns], rows, "numbers")]
    return parts + ([element("p", shown.note, class_="note")] if shown.note else [])


def _failed(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.errors]


def _row(point: Point) -> list[str]:
    cells = [_interval_text(point.intervals[column]) for column in COLUMNS]
    change = point.perplexity
    perplexity = "–" if change is None else _change_text(change)
    seconds = [plain(point.seconds), plain(point.cpu_seconds)]
    return [point.model, point.method, str(point.edits), *cells, perplexity, *seconds]


def _change_text(change: float) -> str:
    """Write a relative change in percent, or a ruined model's as a factor."""
    return f"{100 * change:+.1f}%" if change < FACTOR else f"x{1 + change:.3g}"


def _interval_text(found: Interval | None) -> str:
    if found is None:
        return "–"
    return f"{share(found.mean)} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _score(point: Point) -> float:
    """Return the harmonic mean of reliability, generalization and locality, as far as measured."""
    found = [point.intervals[name] for name in ("reliability", "generalization", "locality")]
    means = [one.mean for one in found if one is not None]
    if not means or min(means) <= 0:
        return 0.0
    return len(means) / sum(1 / mean for mean in means)


def _place(point: Point) -> tuple[float, float, float] | None:
    """Return locality, success (the mean of reliability and generalization) and seconds."""
    found = [point.intervals[name] for name in ("reliability", "generalization")]
    means = [one.mean for one in found if one is not None]
    locality = point.intervals["locality"]
    if not means or locality is None:
        return None
    return locality.mean, sum(means) / len(means), point.seconds or 0.0


def _trade_off(points: Sequence[Point]) -> Markup:
    """Draw success against locality; a dot's area grows with the seconds an edit takes."""
    inner_width, inner_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    dots: list[Markup] = []
    for point in points:
        values = _place(point)
        if values is None:
            continue
        locality, success, seconds = values
        x, y = MARGIN + locality * inner_width, HEIGHT - MARGIN - success * inner_height
        radius = 4 + 3 * math.log10(1 + seconds)
        hint = f"{point.method} on {point.model}: {share(success)}, {share(locality)}"
        circle = element("circle", element("title", hint), cx=f"{x:.1f}", cy=f"{y:.1f}",
                         r=f"{radius:.1f}", fill="#3b6ea5", fill_opacity="0.6")  # fmt: skip
        name = element("text", point.method, x=f"{x + radius + 3:.1f}", y=f"{y + 4:.1f}",
                       font_size="11", fill="currentColor")  # fmt: skip
        dots.append(joined(circle, name))
    frame = element("rect", x=MARGIN, y=MARGIN, width=inner_width, height=inner_height,
                    fill="none", stroke="currentColor", stroke_opacity="0.4")  # fmt: skip
    labels = [
        element("text", "locality, 0 to 100%", x=MARGIN, y=HEIGHT - 16, font_size="11",
                fill="currentColor"),
        element("text", "reliability and generalization, 0 to 100%", x=MARGIN, y=MARGIN - 10,
                font_size="11", fill="currentColor"),
    ]  # fmt: skip
    view = f"0 0 {WIDTH} {HEIGHT}"
    return element(
        "svg", frame, *labels, *dots, viewBox=view, width=WIDTH, role="img",
        aria_label="success against locality",
    )  # fmt: skip


def _curves(points: Sequence[Point]) -> list[Markup]:
    """Show the values of sequences by the number of edits made."""
    rows: list[list[object]] = [
        [
            *(point.method, point.model, str(step["made"])),
            *(share(_after(step["summary"], column)) for column in COLUMNS),
        ]
        for point in points
        for result in point.results
        for step in result.get("curve", ())
    ]
    if not rows:
        return []
    return [
        element("h3", "By number of edits made"),
        table(["method", "model", "made", *COLUMNS], rows, "numbers"),
    ]


def _after(summary: Mapping[str, Any], column: str) -> float | None:
    metric, group = COLUMNS[column]
    entry = summary.get(metric, {})
    return (entry if group is None else entry.get("groups", {}).get(group, {})).get("after")


def _cases(point: Point) -> Markup:
    """Show what was generated before and after, of the first edits, in a part that opens."""
    edits = list(dict.fromkeys(record["edit"] for record in point.report.records))[:CASES]
    rows: list[list[object]] = [
        [record["group"], record["prompt"], ", ".join(record["answers"][:2]),
         record["text_before"], record["text_after"]]
        for record in point.report.records
        if record["edit"] in edits and record["metric"] in ("reliability", "locality")
    ]  # fmt: skip
    title = element("summary", f"{point.method} on {point.model}: before and after, first edits")
    head: list[object] = ["group", "prompt", "answers", "before", "after"]
    return element("details", title, table(head, rows))
