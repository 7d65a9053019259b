"""The page: everything of all models in one file that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emend._io import write_text
from emend.metrics import Report
from emend.report import _sections as sections
from emend.report._document import document
from emend.report._markup import Markup, element, joined
from emend.report._results import Result, results_of

LAB_NOTE = (
    "Numbers from the lab are about the lab: small models of a small invented world. "
    "They say how a method works, not how well it does on a model of another size."
)


def write_html(
    results: Mapping[str, Report | Mapping[str, Any]],
    path: str | Path,
    *,
    title: str = "What the edits changed",
    command: str | None = None,
) -> Path:
    """Write one self-contained page: styles and plots are in it, no request leaves it.

    Args:
        results: Results by model name: reports, or the plain data that they save
            (``Report.to_dict()`` with the ``records``).
        path: The file to write, whole or not at all.
        title: The page's heading.
        command: What to run to get the same results again, where one command does it.

    Returns:
        The path.

    Raises:
        InvalidInput: There are no results, or the path is a directory.
    """
    found = results_of(results)
    path = Path(path)
    write_text(path, document(title, _body(title, found, command)))
    return path


def _body(title: str, results: Sequence[Result], command: str | None) -> list[Markup]:
    parts = [element("h1", title), element("p", sections.lead(results), class_="lead")]
    if any(result.name.startswith("lab/") for result in results):
        parts.append(element("p", LAB_NOTE, class_="note"))
    parts.append(sections.overview(results))
    parts += [_model(result) for result in results]
    parts.append(sections.reproduction(results, command))
    return parts


def _model(result: Result) -> Markup:
    return element(
        "section",
        element("h2", result.name),
        joined(
            sections.measures(result),
            sections.groups(result),
            sections.changes(result),
            sections.examples(result),
            sections.efficiency(result),
            sections.settings(result),
        ),
    )
