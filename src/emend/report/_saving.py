"""Traces, averages and lenses in files: the path's ending says what kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emend._io import whole_file, write_json, write_text
from emend.errors import InvalidInput
from emend.locate import AverageEffects, Lens, Trace
from emend.report import _figures as figures
from emend.report import _locating as locating

ENDINGS = (".html", ".json", ".png", ".svg")
"""A page, plain data, and two kinds of pictures."""


def check_suffix(path: str | Path) -> Path:
    """Refuse a path whose ending is none of `ENDINGS`.

    Raises:
        InvalidInput: It is not one of them.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InvalidInput(
            f"cannot tell from {path.name!r} what to write, expected a name that ends in "
            f"{', '.join(ENDINGS)}"
        )
    return path


def write_trace(found: Trace, path: str | Path) -> Path:
    """Write heat maps of one trace: a self-contained page, a picture, or plain data.

    Raises:
        InvalidInput: The ending is none of `ENDINGS`, or the path is a directory.
        MissingExtra: A picture is wanted, and matplotlib is not installed.
    """
    return _write(found, path, locating.trace_page, figures.trace_figure)


def write_averages(found: AverageEffects, path: str | Path) -> Path:
    """Write average effects as curves with intervals; see `write_trace`."""
    return _write(found, path, locating.averages_page, figures.averages_figure)


def write_lens(found: Lens, path: str | Path) -> Path:
    """Write a logit lens as a table; see `write_trace`."""
    return _write(found, path, locating.lens_page, figures.lens_figure)


def _write(
    found: Any, path: str | Path, page: Callable[[Any], str], figure: Callable[[Any], Any]
) -> Path:
    path = check_suffix(path)
    kind = path.suffix.lower()
    if kind == ".json":
        write_json(path, found.to_dict())
    elif kind == ".html":
        write_text(path, page(found))
    else:
        drawn = figure(found)
        with whole_file(path) as aside, warnings.catch_warnings():
            # A token of a script that no installed font has is drawn as a box.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            drawn.savefig(aside, format=kind[1:], dpi=160, metadata=_metadata(kind))
    return path


def _metadata(kind: str) -> dict[str, Any]:
    """Without the date: the same result gives the same file."""
    return {"Date": None} if kind == ".svg" else {}
