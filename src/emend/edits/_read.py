"""Reading edits from JSONL, JSON and YAML, with every problem reported at once."""

from __future__ import annotations

import os
from pathlib import Path

from emend._parse import check_path, items_of
from emend._validate import Fault, Problems
from emend.edits._edit import Edit
from emend.edits._record import parse_edit
from emend.errors import BrokenFile

SUFFIXES = (".jsonl", ".json", ".yaml", ".yml")


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
    check_path(path, "edits", SUFFIXES)
    problems = Problems(str(path))
    edits: list[Edit] = []
    first_line: dict[str, int] = {}
    for found in items_of(path, problems):
        edit = parse_edit(found.record, problems, line=found.line)
        if edit is None:
            continue
        if edit.id in first_line:
            there = f"{edit.id!r} is also on line {first_line[edit.id]}"
            remedy = "remove one, or give it another id"
            problems.note(Fault(there, "each id once", remedy), "id", found.line)
            continue
        first_line[edit.id] = found.line
        edits.append(edit)
    problems.check()
    if not edits:
        raise BrokenFile(f"{path} holds no edits, expected at least one: see `emend edit --help`")
    return edits
