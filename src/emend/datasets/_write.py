"""Writing edits as JSON lines, JSON, YAML or a table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emend._io import json_text, write_text
from emend.datasets import _table
from emend.edits import Edit, edit_to_record
from emend.errors import InvalidInput, MissingExtra

SUFFIXES = (".jsonl", ".json", ".yaml", ".yml", ".csv", ".tsv")


def write_edits(path: str | os.PathLike[str], edits: Iterable[Edit]) -> None:
    """Write edits to a file that `read_edits` gives back equal.

    The file is written aside and renamed, so that a reader never sees half of it.

    Args:
        path: The file; its suffix (.jsonl, .json, .yaml, .yml, .csv, .tsv) says in which form.
        edits: What to write, in this order.

    Raises:
        InvalidInput: Another suffix, a directory, no edits, or an id that stands twice.
        MissingExtra: It is to be YAML and pyyaml is not installed.
    """
    path = Path(path)
    edits = list(edits)
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}: rename it"
        )
    ids = [edit.id for edit in edits]
    if not ids:
        raise InvalidInput(f"no edits to write to {path}, expected at least one")
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise InvalidInput(f"id {twice!r} stands twice, expected each id once: change one")
    write_text(path, _formatted([edit_to_record(edit) for edit in edits], path.suffix.lower()))


def _formatted(records: list[dict[str, object]], suffix: str) -> str:
    if suffix == ".jsonl":
        return "".join(json_text(record) + "\n" for record in records)
    if suffix in (".csv", ".tsv"):
        return _table.written(records, "\t" if suffix == ".tsv" else ",")
    if suffix == ".json":
        return json_text(records, indent=2) + "\n"
    try:
        import yaml  # an extra: the core does not need it
    except ImportError as error:
        raise MissingExtra.of("pyyaml", "yaml", "write YAML") from error

    class Dumper(yaml.SafeDumper):
        """Quotes what a reader of YAML would fold or part: U+0085, U+2028 and their like."""

        def represent_text(self, text: str) -> Any:
            style = None if text.isprintable() else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    return yaml.dump(records, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=math.inf)
