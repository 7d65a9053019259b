"""Read what flags name (edits, patches), and refuse early what cannot be used."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from emend import datasets
from emend._validate import Problems, choice_fault, refuse
from emend.edits import Edit
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.patches import Outcome, Patch

PROBES = ("auto", "given", "none")  # emend.probes.SOURCES, which loads torch
_MOST_SHOWN = 5


def read_edits(path: Path, limit: int | None = None) -> list[Edit]:
    """Read the edits of a file, or of standard input (`-`).

    Our own form is refused where a record cannot be read: the user can correct it. Of a published
    form the other records are read. Which form was recognised, how many edits were read and what
    was not is reported on standard error.

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
        report_reading(found)
    return list(found.edits)


def report_reading(found: datasets.Reading, most: int | None = _MOST_SHOWN) -> None:
    """Report on standard error what was read, and what was not (`most` lines of it)."""
    count = f"{len(found.edits)} edit{'s' * (len(found.edits) != 1)}"
    typer.echo(f"read {count} from {found.source} ({found.format.title})", err=True)
    if found.joined:
        typer.echo(f"joined {found.joined} records that repeat an edit to the first", err=True)
    _report("problems: these records are not read", found.problems, most)
    _report("probes or columns are left out", found.left_out, most)


def _report(what: str, problems: Problems, most: int | None) -> None:
    lines = [str(one) for one in problems.found]
    if not lines:
        return
    shown = [f"  {line}" for line in lines[:most]]
    if len(lines) > len(shown):
        shown.append(f"  ... and {len(lines) - len(shown)} more: `emend convert` lists all")
    typer.echo("\n".join([f"warning: {len(lines)} {what}", *shown]), err=True)


def read_patch_early(path: Path) -> Patch | None:
    """Read a patch before its model is loaded; None for a GGUF adapter, which needs the model.

    Raises:
        EmendError: It cannot be read.
    """
    from emend.patches import is_gguf, load_patch

    return None if is_gguf(path) else load_patch(path)


def read_patches(paths: list[Path], model: str | None) -> list[Patch]:
    """Read patches, with the model that --model names for adapters among them.

    Raises:
        EmendError: One cannot be read.
    """
    from emend.models import load
    from emend.patches import load_patch

    network: Any = None if model is None else load(model)[0]
    return [load_patch(path, network) for path in paths]


def output_directory(path: Path | None) -> Path | None:
    """Refuse a path that cannot become a directory, before any work is done for it.

    Raises:
        InvalidInput: It is a file, or lies below one.
    """
    for part in [path, *path.parents] if path else []:
        if part.exists() and not part.is_dir():
            raise InvalidInput(
                f"--output_path {path}: {part} is a file, expected a directory: choose another"
            )
        if part.is_dir():
            break
    return path


def output_file(path: Path | None) -> None:
    """Refuse a path that cannot become a page or a picture, before any work is done for it.

    Raises:
        InvalidInput: Its suffix is unknown, it is a directory, or it lies below a file.
    """
    if path is None:
        return
    from emend.report import check_suffix

    check_suffix(path)
    if path.is_dir():
        raise InvalidInput(f"--output_path {path} is a directory, expected a file: name one in it")
    output_directory(path.parent)


def check_probes(probes: str) -> None:
    """Refuse a word that --probes does not know, before a model is loaded.

    Raises:
        InvalidInput: It is another one.
    """
    refuse("--probes", choice_fault(probes, PROBES))


def check_strict(strict: bool, outcomes: Sequence[Outcome]) -> None:
    """Exit with status 1 where --strict is given and an edit did not take."""
    if strict and not all(one.took for one in outcomes):
        raise typer.Exit(1)


def check_log(log_samples: bool, output_path: Path | None) -> None:
    """Refuse --log_samples without a directory to write to.

    Raises:
        InvalidInput: There is none.
    """
    if log_samples and output_path is None:
        raise InvalidInput("--log_samples is given without --output_path: say where to write them")


def keep_answers(model: Any, output_path: Path | None) -> None:
    """Have an endpoint save its answers under the output path, and go on from them."""
    from emend.models import Endpoint

    if output_path is not None and isinstance(model, Endpoint):
        model.keep_answers(output_path / "answers.jsonl")


def integers(name: str, text: str | None) -> list[int] | None:
    """Read numbers separated by commas; None for "all", or where nothing is given.

    Raises:
        InvalidInput: A part is no number.
    """
    if text is None or text.strip() == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(f"{name} is {text!r}, expected numbers such as 0,1,2, or all") from None


def author_name(given: str | None) -> str:
    """Return the author that --author names, else the user's name."""
    if given is not None:
        return given
    with suppress(OSError, KeyError):  # there is no such user in some containers
        return getpass.getuser()
    return ""
