"""The records of a file or of standard input, whatever its name.

YAML and tables are known by their endings, everything else by how it begins: a bracket is a JSON
list, a brace JSON lines (or JSON objects that follow one another), a dash YAML, and a line that
names columns a table.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emend._parse import Item, decode, json_lines, json_list, json_values, yaml_list
from emend._validate import Problems
from emend.datasets import _table
from emend.errors import InvalidInput, MissingFile

STANDARD_INPUT = "-"
_YAML, _TABLES = (".yaml", ".yml"), (".csv", ".tsv", ".tab")
_HEAD = 65_536
"""Bytes that are looked at to know what a file is."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        items: Its records with their lines; taking one may note problems.
        problems: What could not be read.
        columns: The names in the header of a table; empty for all else.
        by_line: Whether each record has a line of its own.
    """

    items: Iterator[Item]
    problems: Problems
    columns: tuple[str, ...] = ()
    by_line: bool = False


def content_of(path: str | os.PathLike[str]) -> Content:
    """Read a file once; `-` is standard input, and a pipe does as well as a file.

    Raises:
        InvalidInput: It is a directory, or cannot be read.
        MissingFile: There is no such file.
    """
    if str(path) == STANDARD_INPUT:
        return _parsed("standard input", "", sys.stdin.buffer.read())
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file of edits: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for edits")
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
