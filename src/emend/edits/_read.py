"""Reading edits from JSONL, JSON and YAML, with every problem reported at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from emend.edits._edit import Edit
from emend.edits._items import Item, Problem, items_of
from emend.edits._record import parse_edit
from emend.errors import BrokenFile, InvalidInput, MissingFile

SUFFIXES = (".jsonl", ".json", ".yaml", ".yml")
_MOST_SHOWN = 50


def read_edits(path: str | os.PathLike[str]) -> list[Edit]:
    """Read edits from a file, in its order.

    A `.jsonl` file has one object per line (blank lines are passed over); `.json`, `.yaml` and
    `.yml` hold one list of objects. The fields are those of `Edit`; `probes` is a list of objects
    with the fields of `Probe`.

    Args:
        path: The file; its suffix says which form it has.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, cannot be read, or has another suffix.
        BrokenFile: Something in it cannot be used. The message has a line for every problem:
            file, line, field, what was found, what was expected, how to mend it.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    path = Path(path)
    _check_path(path)
    edits: list[Edit] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for found in _items(path):
        if isinstance(found, Problem):
            problems.append(f"{path}:{found.line}: {found.message}")
            continue
        edit, faults = parse_edit(found.record)
        if edit is not None and edit.id in first_line:
            faults = [
                f"id {edit.id!r} is also on line {first_line[edit.id]}, "
                "expected each id once: remove one, or give it another id"
            ]
        elif edit is not None:
            first_line[edit.id] = found.line
            edits.append(edit)
        problems.extend(f"{path}:{found.line}: {fault}" for fault in faults)
    if problems:
        raise _broken(path, problems)
    if not edits:
        raise BrokenFile(f"{path} holds no edits, expected at least one: see `emend edit --help`")
    return edits


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file of edits: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for edits")
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}: rename it"
        )


def _items(path: Path) -> Iterator[Item | Problem]:
    try:
        yield from items_of(path)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path} ({error.strerror}): expected a readable file"
        ) from error


def _broken(path: Path, problems: list[str]) -> BrokenFile:
    if len(problems) == 1:
        return BrokenFile(problems[0])
    shown = problems[:_MOST_SHOWN]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    error = BrokenFile(f"{path}: {len(problems)} problems", shown)
    error.problems = tuple(problems)
    return error
