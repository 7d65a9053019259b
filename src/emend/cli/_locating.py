"""What commands that look into a model share: an output file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emend.cli._output import output_directory

OutputFile = Annotated[
    Path | None,
    typer.Option(
        "--output_path",
        help="A file to write: .html, .png, .svg or .json.",
        metavar="FILE",
    ),
]


def output_file(path: Path | None) -> None:
    """Refuse a path that cannot become such a file, before any work is done for it.

    Raises:
        InvalidInput: Its ending says nothing, it is a directory, or it stands below a file.
    """
    if path is None:
        return
    from emend.errors import InvalidInput
    from emend.report import check_ending

    check_ending(path)
    if path.is_dir():
        raise InvalidInput(f"--output_path {path} is a directory, expected a file: name one in it")
    output_directory(path.parent)
