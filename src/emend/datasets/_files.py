"""Files of edits: parsing one into records whatever its syntax, and writing one.

YAML and tables are recognised by their endings, everything else by how it begins: a bracket is a
JSON list, a brace JSON lines (or JSON objects one after another), a dash YAML, and a line that
names columns a table.
"""

from __future__ import annotations

import codecs
import importlib
import io
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend._io import json_text, write_text
from emend._parse import Item, decode, json_lines, json_list, json_values, yaml_list
from emend._validate import Problems
from emend.datasets import _table
from emend.edits import Edit, edit_to_record
from emend.errors import InvalidInput, MissingExtra, MissingFile, first_line

STANDARD_INPUT = "-"
_YAML, _TABLES = (".yaml", ".yml"), (".csv", ".tsv", ".tab")
PARQUET = ".parquet"
_HEAD = 65_536
"""Number of bytes by which the syntax is recognised."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SUFFIXES = (".jsonl", ".json", ".yaml", ".yml", ".csv", ".tsv")


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
        items: Its records with their lines; iterating may note problems.
        problems: Syntax errors.
        columns: The names in the header of a table; else empty.
        by_line: Whether each record has a line of its own.
    """

    items: Iterator[Item]
    problems: Problems
    columns: tuple[str, ...] = ()
    by_line: bool = False


def content_of(path: str | os.PathLike[str], *, what: str = "edits") -> Content:
    """Read a file once; `-` is standard input, and a pipe is read like a file.

    Args:
        path: The file.
        what: What it should hold, for messages.

    Raises:
        InvalidInput: It is a directory, or cannot be read.
        MissingExtra: It is parquet and the package datasets is not installed.
        MissingFile: There is no such file.
    """
    if str(path) == STANDARD_INPUT:
        return _parsed("standard input", "", sys.stdin.buffer.read())
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file of {what}: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for {what}")
    if path.suffix.lower() == PARQUET:
        return _parquet(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_HEAD)
            if b"\x00" not in raw or raw.startswith(_UTF16):  # else the rest is not text either
                raw += file.read()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path} ({error.strerror}): expected a readable file"
        ) from error
    return _parsed(str(path), path.suffix.lower(), raw)


def _parquet(path: Path) -> Content:
    """Read a parquet file through the package datasets.

    Raises:
        InvalidInput: It is no parquet file.
        MissingExtra: The package is not installed.
    """
    try:
        library: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtra.of("datasets", "datasets", "read parquet") from error
    with tempfile.TemporaryDirectory() as cache:
        try:
            rows = library.Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)
            records = rows.to_list()
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"cannot read {path} ({first_line(error)}): expected a parquet file"
            ) from error
    items = (Item(number, record) for number, record in enumerate(records, start=1))
    return Content(items, Problems(str(path)))


def _parsed(source: str, ending: str, raw: bytes) -> Content:
    problems = Problems(source)
    if raw.startswith(_UTF16):  # what spreadsheets save as Unicode text
        raw = raw.decode("utf-16", errors="replace").encode()
    begin = raw[:_HEAD].decode("utf-8-sig", errors="ignore").lstrip()
    is_yaml = ending in _YAML or (ending not in _TABLES and begin.startswith("-"))
    is_json = begin.startswith(("[", "{")) or not begin
    is_table = not is_yaml and (ending in _TABLES or (not is_json and _table.begins(begin)))
    whole = begin.startswith("[") or begin.partition("\n")[0].strip() == "{"
    if not (is_yaml or is_table or whole):
        return Content(json_lines(io.BytesIO(raw), problems), problems, by_line=True)
    text = decode(raw, problems)
    if text is None:
        return Content(iter(()), problems)
    if is_table:
        columns, items = _table.read(text, problems, tabs=ending in (".tsv", ".tab"))
        return Content(items, problems, columns, by_line=True)
    if is_yaml:
        return Content(yaml_list(text, problems), problems)
    read = json_list if begin.startswith("[") else json_values
    return Content(read(text, problems), problems)


def write_edits(path: str | os.PathLike[str], edits: Iterable[Edit]) -> None:
    """Write edits to a file, atomically; `read_edits` returns equal ones.

    Args:
        path: The file; its suffix (.jsonl, .json, .yaml, .yml, .csv, .tsv) selects the syntax.
        edits: The edits, in this order.

    Raises:
        InvalidInput: Another suffix, a directory, no edits, or an id that occurs twice.
        MissingExtra: The suffix is YAML's and pyyaml is not installed.
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
        raise InvalidInput(f"id {twice!r} occurs twice, expected each id once: change one")
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
        """Quotes texts that a YAML reader would fold or split: U+0085, U+2028 and the like."""

        def represent_text(self, text: str) -> Any:
            style = None if text.isprintable() else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    return yaml.dump(records, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=math.inf)
