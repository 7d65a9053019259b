"""What --edits names, read in any known form, with a line that says what was read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import typer

from emend import datasets
from emend._validate import Problems, shown
from emend.edits import Edit, edit_from_record
from emend.errors import InvalidInput

_MOST_SHOWN = 5


def read_edits(path: Path, limit: int | None = None) -> list[Edit]:
    """Read the edits of a file, or of standard input (`-`).

    Our own form is refused where a record cannot be read: it is the user's to correct. Of a
    published form the other records are read; which form was recognised, how many edits were read
    and what was not is said on standard error.

    Args:
        path: The file.
        limit: Read at most this many.

    Raises:
        BrokenFile: A record of our own form cannot be read, or none of another.
        InvalidInput: It is a directory, or cannot be read.
        MissingFile: There is no such file.
    """
    found = datasets.read(path, limit=limit)
    if found.is_own:
        found.check()
    if not found.is_own or found.left_out.found:
        tell_reading(found)
    return list(found.edits)


def single_edit(fields: Mapping[str, str], translations: list[str] | None = None) -> Edit:
    """Make the edit that flags give.

    Args:
        fields: Its fields by name.
        translations: What --translation gave: JSON objects.

    Raises:
        BrokenFile: A field cannot be used.
        InvalidInput: A translation is not JSON.
    """
    parts: list[object] = []
    for text in translations or ():
        try:
            parts.append(json.loads(text))
        except ValueError:
            raise InvalidInput(
                f"--translation is {shown(text)}, expected a JSON object with language, prompt, "
                "subject and target: put it in single quotes"
            ) from None
    return edit_from_record({**fields, **({"translations": parts} if parts else {})})


def tell_reading(found: datasets.Reading, most: int | None = _MOST_SHOWN) -> None:
    """Say on standard error what was read, in which form, and what was not (`most` lines of it)."""
    count = f"{len(found.edits)} edit{'s' * (len(found.edits) != 1)}"
    typer.echo(f"read {count} from {found.source} ({found.format.title})", err=True)
    if found.joined:
        typer.echo(f"joined {found.joined} records that repeat an edit to the first", err=True)
    _tell("problems: these records are not read", found.problems, most)
    _tell("probes or columns are left out", found.left_out, most)


def _tell(what: str, problems: Problems, most: int | None) -> None:
    lines = [str(one) for one in problems.found]
    if not lines:
        return
    shown = [f"  {line}" for line in lines[:most]]
    if len(lines) > len(shown):
        shown.append(f"  ... and {len(lines) - len(shown)} more: `emend convert` lists all")
    typer.echo("\n".join([f"warning: {len(lines)} {what}", *shown]), err=True)
