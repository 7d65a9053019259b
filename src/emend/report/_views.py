"""One interface to all results: as a terminal table, Markdown, a page, a picture or plain data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from emend._io import whole_file, write_json, write_text
from emend.arithmetic import Tuning
from emend.bench.leaderboard import Board
from emend.erasure import AttackReport, DefenceReport
from emend.errors import InvalidInput
from emend.locate import AverageEffects, Lens, Trace
from emend.metrics import Report
from emend.report._bench import BenchView
from emend.report._erasure import ErasureView
from emend.report._evaluations import ResultsView
from emend.report._scales import ScalesView
from emend.report.locating import AveragesView, LensView, TraceView
from emend.report.tables import Table, to_markdown, to_rich

if TYPE_CHECKING:
    from rich.console import Group

SUFFIXES = (".html", ".json", ".md", ".png", ".svg")
"""Of a page, plain data, Markdown, and two kinds of pictures."""

Locating = Trace | AverageEffects | Lens

Found = Locating | Report | Board | AttackReport | DefenceReport | Tuning | Mapping[str, Any]
"""What can be shown; a mapping holds reports, or the data that they save, by model name."""


class View(Protocol):
    """What every kind of result provides."""

    def tables(self) -> Sequence[Table]:
        """Return its numbers."""
        ...

    def page(self) -> str:
        """Write one self-contained page."""
        ...

    def figure(self) -> Any:
        """Draw a figure of matplotlib."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """Return plain data that JSON can hold."""
        ...


def view_of(found: Found, title: str | None = None, command: str | None = None) -> View:
    """Return the view of a result; see `write` for the arguments."""
    if isinstance(found, Trace):
        return TraceView(found)
    if isinstance(found, AverageEffects):
        return AveragesView(found)
    if isinstance(found, Lens):
        return LensView(found)
    if isinstance(found, Board):
        return BenchView(found, title)
    if isinstance(found, (AttackReport, DefenceReport)):
        return ErasureView(found, title)
    if isinstance(found, Tuning):
        return ScalesView(found)
    results = {title or "model": found} if isinstance(found, Report) else found
    return ResultsView(results, title, command)


def terminal(found: Found, title: str | None = None) -> Group:
    """Render a result for a terminal: its tables.

    Args:
        found: The result.
        title: Of the table of an evaluation or of attacks.
    """
    from rich.console import Group

    return Group(*map(to_rich, view_of(found, title).tables()))


def write(
    found: Found, path: str | Path, *, title: str | None = None, command: str | None = None
) -> Path:
    """Write a result to one self-contained file; its suffix, one of `SUFFIXES`, selects the form.

    Args:
        found: The result.
        path: The file to write, whole or not at all.
        title: Heading of the page of an evaluation or of attacks.
        command: What to run to get the same results again, where one command does it.

    Returns:
        The path.

    Raises:
        InvalidInput: The suffix is none of `SUFFIXES`, there is nothing to show in that form, or
            the path is a directory.
        MissingExtra: A picture is asked for, and matplotlib is not installed.
    """
    path = check_suffix(path)
    view, kind = view_of(found, title, command), path.suffix.lower()
    if kind == ".json":
        write_json(path, view.to_dict())
    elif kind == ".md":
        write_text(path, "\n".join(map(to_markdown, view.tables())))
    elif kind == ".html":
        write_text(path, view.page())
    else:
        _draw(view, path, kind[1:])
    return path


def _draw(view: View, path: Path, form: str) -> None:
    # Without the date: the same result gives the same file.
    metadata = cast("dict[str, Any]", {"Date": None} if form == "svg" else {})
    drawn = view.figure()
    with whole_file(path) as aside, warnings.catch_warnings():
        # A token of a script that no installed font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawn.savefig(aside, format=form, dpi=160, metadata=metadata)


def check_suffix(path: str | Path) -> Path:
    """Refuse a path whose suffix is none of `SUFFIXES`.

    Raises:
        InvalidInput: It is not one of them.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{path.name!r} does not show what to write, expected a name that ends in "
            f"{', '.join(SUFFIXES)}: rename it"
        )
    return path
