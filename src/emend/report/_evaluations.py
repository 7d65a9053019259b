"""The view of evaluations: a table of measures, and a page with everything of all models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emend.errors import InvalidInput
from emend.probes import radius_of_records
from emend.report._examples import chosen, example_table
from emend.report._plots import Row, bar_plot, dot_plot
from emend.report._results import (
    PROTOCOL_TITLES,
    Entry,
    Result,
    bytes_text,
    headlines,
    is_share,
    label,
    plain,
    results_of,
    share,
)
from emend.report.markup import Markup, document, element, joined, table
from emend.report.tables import Table

LAB_NOTE = (
    "Numbers from the lab are about the lab: small models of a small invented world. "
    "They say how a method works, not how well it does on a model of another size."
)

SCHEDULES = {
    "single": "each alone on the unedited model",
    "batch": "all of them at once",
}


class ResultsView:
    """Evaluations by model name, as reports or as the plain data that they save.

    Args:
        results: The evaluations.
        title: The page's heading.
        command: What to run to get the same results again, where one command does it.

    Raises:
        InvalidInput: There are none, or one lacks its summary or records.
    """

    def __init__(
        self,
        results: Mapping[str, Any],
        title: str | None = None,
        command: str | None = None,
    ) -> None:
        self.results = results_of(results)
        self.title, self.command = title or "What the edits changed", command

    def to_dict(self) -> dict[str, Any]:
        """Return summary, settings and records by model name."""
        return {
            one.name: {"summary": one.summary, "settings": one.settings, "records": one.records}
            for one in self.results
        }

    def figure(self) -> Any:
        """Refuse: plots of evaluations are in the page.

        Raises:
            InvalidInput: Always.
        """
        raise InvalidInput("an evaluation is no picture, expected .html, .md or .json: rename it")

    def tables(self) -> list[Table]:
        """Return, per model, each measure before and after, and after by other protocols."""
        return [_summary_table(one) for one in self.results]

    def page(self) -> str:
        """Write the page: styles and plots are in it, no request leaves it."""
        parts = [element("h1", self.title), element("p", lead(self.results), class_="lead")]
        if any(result.name.startswith("lab/") for result in self.results):
            parts.append(element("p", LAB_NOTE, class_="note"))
        parts.append(overview(self.results))
        parts += [_model(result) for result in self.results]
        parts.append(reproduction(self.results, self.command))
        return document(self.title, parts)


def _summary_table(result: Result) -> Table:
    rows: list[list[str]] = []
    faint: set[int] = set()
    for name, entry in result.summary.items():
        if is_share(entry):
            parts = {f"  {label(group)}": part for group, part in entry.get("groups", {}).items()}
            parts |= {f"  in {tag}": part for tag, part in entry.get("languages", {}).items()}
            rows.append(_shares_row(label(name), entry))
            faint |= set(range(len(rows), len(rows) + len(parts)))
            rows += [_shares_row(group, part) for group, part in parts.items()]
        elif "before" in entry:
            values = (plain(entry.get("before")), plain(entry.get("after")))
            rows.append([label(name), str(entry.get("n", "–")), *values, "–", "–"])
    columns = ("measure", "edits", "before", "after", "teacher forced", "probability")
    return Table(result.name, columns, rows, frozenset(faint))


def _shares_row(name: str, entry: Entry) -> list[str]:
    protocols = entry.get("protocols", {})  # a language has none
    others = (protocols.get(p, {}).get("after") for p in ("teacher_forced", "probability"))
    return [name, str(entry["n"]), *map(share, (entry["before"], entry["after"], *others))]


def _model(result: Result) -> Markup:
    parts = (measures, groups, changes, examples, efficiency, settings)
    return element("section", element("h2", result.name), joined(*(part(result) for part in parts)))


def lead(results: Sequence[Result]) -> str:
    """Summarise in one sentence: how many edits, by which method, in which models."""
    settings = results[0].settings
    count = settings.get("edits", len({record["edit"] for record in results[0].records}))
    methods = list(dict.fromkeys(m for r in results for m in r.settings.get("methods", {})))
    by = f" by {', '.join(methods)}" if methods else ""
    how = SCHEDULES.get(settings.get("schedule", ""), "")
    models = ", ".join(result.name for result in results)
    facts = "fact" if count == 1 else "facts"
    return f"{count} {facts} edited{by} in {models}{', ' + how if how else ''}."


def overview(results: Sequence[Result]) -> Markup:
    """Draw a plot per model: each measure before and after, by exact match."""
    figures = [
        element(
            "figure",
            element("figcaption", result.name),
            dot_plot(_rows(_shares(result)), f"Measures on {result.name}, before and after"),
        )
        for result in results
    ]
    key = element(
        "p",
        element("span", class_="key before"),
        " before ",
        element("span", class_="key after"),
        " after the edit, by exact match of the greedy answer (measures of others: by their own)",
        class_="legend",
    )
    return joined(element("div", *figures, class_="figures"), key)


def _rows(entries: Mapping[str, Entry]) -> list[Row]:
    return [
        Row(label(name), entry.get("before"), entry.get("after")) for name, entry in entries.items()
    ]


def measures(result: Result) -> Markup:
    """Write the table of measures: a column per protocol, before and after."""
    own = {entry["headline"]: label(entry["headline"]) for entry in _shares(result).values()}
    titles = PROTOCOL_TITLES | {name: own[name] for name in own if name not in PROTOCOL_TITLES}
    head: list[object] = ["measure", "edits", *titles.values()]
    rows: list[list[object]] = []
    for name, entry in _shares(result).items():
        rows.append(_measure_row(element("th", label(name), scope="row"), entry, titles))
        for group, part in entry.get("groups", {}).items():
            cell = element("th", label(group), scope="row", class_="group")
            rows.append(_measure_row(cell, part, titles))
        if "correct" in entry:
            cell = element("th", "answers that are right", scope="row", class_="group")
            correct = {**entry["correct"], "protocols": {"exact_match": entry["correct"]}}
            rows.append(_measure_row(cell, correct, titles))
    notes = element(
        "p",
        "Each cell: before → after. Exact match: the greedy answer is an accepted one. Teacher "
        "forced: share of the answer's tokens that come first given those before them. "
        "Probability: the accepted answer is more probable than its rival. Locality is the share "
        "of answers that are as they were, right or wrong.",
        class_="note",
    )
    return joined(table(head, rows, "numbers"), _fluency(result), notes)


def _shares(result: Result) -> dict[str, Entry]:
    return {name: entry for name, entry in result.summary.items() if is_share(entry)}


def _measure_row(cell: Markup, entry: Entry, titles: Iterable[str]) -> list[object]:
    cells = [_change(entry.get("protocols", {}).get(protocol)) for protocol in titles]
    return [cell, entry["n"], *cells]


def _change(entry: Entry | None) -> Markup:
    if entry is None or entry.get("after") is None:
        return element("td", "–")
    before = element("span", f"{share(entry['before'])} → ", class_="was")
    return element("td", before, share(entry["after"]))


def _fluency(result: Result) -> Markup:
    entry = result.summary.get("fluency")
    if not entry or entry.get("after") is None:
        return Markup("")
    values = f"{plain(entry['before'])} → {plain(entry['after'])}"
    return element("p", f"Fluency (n-gram entropy of greedy text, bits × 100): {values}")


def groups(result: Result) -> Markup:
    """Draw bars of the groups of portability and locality."""
    figures = [
        element(
            "figure",
            element("figcaption", f"{label(name)} by group"),
            bar_plot(_rows(entry["groups"]), f"{label(name)} on {result.name} by group"),
        )
        for name, entry in _shares(result).items()
        if entry.get("groups")
    ]
    if not figures:
        return Markup("")
    legend = element("p", "Bar: after the edit. Upright mark: before.", class_="legend")
    return joined(element("div", *figures, class_="figures"), legend)


def changes(result: Result) -> Markup:
    """Write what else changed, in a sentence for each group of probes."""
    radius = radius_of_records(result.records)
    if radius is None:
        return Markup("")
    lines = [element("li", sentence) for sentence in radius.sentences()]
    return joined(element("h3", "What else changed"), element("ul", *lines))


def examples(result: Result) -> Markup:
    """Write a few answers of each measure, and all of them to unfold."""
    asked = [record for record in result.records if record["answers"]]
    if not asked:
        return Markup("")
    decide = headlines(result.summary)
    every = element(
        "details",
        element("summary", f"All {len(asked)} answers"),
        example_table(asked, decide),
    )
    return joined(element("h3", "Answers"), example_table(chosen(asked, decide), decide), every)


def efficiency(result: Result) -> Markup:
    """Write what the edits took."""
    entry = result.summary.get("efficiency")
    if not entry:
        return Markup("")
    rows: list[list[object]] = [
        ["time per edit", plain(entry.get("seconds_per_edit"), "s")],
        ["precomputation, once", plain(entry.get("precompute_seconds"), "s")],
        ["peak memory", bytes_text(entry.get("peak_memory_bytes"))],
    ]
    return joined(element("h3", "Efficiency"), table([], rows, "numbers narrow"))


def settings(result: Result) -> Markup:
    """Write model, method and its settings, versions; to unfold."""
    rows = [[name, _shown(value)] for name, value in _flat(result.settings)]
    if not rows:
        return Markup("")
    return element(
        "details",
        element("summary", "Settings and versions"),
        table(["setting", "value"], [list(row) for row in rows]),
    )


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            pairs.append((prefix + name, value))
    return pairs


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def reproduction(results: Sequence[Result], command: str | None) -> Markup:
    """Write what to run to get the same numbers again."""
    lines = [command] if command else _commands(results)
    if not lines:
        return Markup("")
    return joined(
        element("h2", "How to get these numbers again"),
        element("pre", element("code", "\n".join(lines))),
    )


def _commands(results: Sequence[Result]) -> list[str]:
    lines: list[str] = []
    for result in results:
        for method in result.settings.get("methods", {}):
            model = shlex.quote(result.name)
            lines += [
                f"emend edit --model {model} --method {method} --edits edits.jsonl"
                " --output_path patch/",
                f"emend eval --model {model} --patch patch/ --edits edits.jsonl"
                " --output_path results/",
            ]
    return lines
