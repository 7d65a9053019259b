"""The raw records of a file with the line each begins on; nothing here knows what an edit is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emend.errors import MissingExtra

LONGEST_LINE = 1_000_000
"""Bytes. An edit with all its probes is a few thousand; a longer line is another kind of file."""


@dataclass(frozen=True)
class Item:
    """A record as the parser gave it, and the line (from 1) on which it begins."""

    line: int
    record: object


@dataclass(frozen=True)
class Problem:
    """What keeps a part of the file from being read, and the line (from 1) on which it stands."""

    line: int
    message: str


def items_of(path: Path) -> Iterator[Item | Problem]:
    """All records of a file; a part that cannot be read comes as a `Problem`."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        yield from _json_lines(path)
        return
    text = decode(path.read_bytes())
    if isinstance(text, Problem):
        yield text
    elif suffix == ".json":
        yield from _json_list(text)
    else:
        yield from _yaml_list(text)


def decode(raw: bytes, line: int = 1) -> str | Problem:
    """UTF-8 text of bytes, or what is wrong with them."""
    if b"\x00" in raw:
        line += raw[: raw.index(b"\x00")].count(b"\n")
        return Problem(line, "found a NUL byte, expected text in UTF-8: check the kind of file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += raw[: error.start].count(b"\n")
        return Problem(
            line,
            f"found byte 0x{raw[error.start]:02x}, expected text in UTF-8: save the file as UTF-8",
        )


def _json_lines(path: Path) -> Iterator[Item | Problem]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                length = len(raw) + _skip_line(file)
                yield Problem(
                    number,
                    f"found a line of {length:,} bytes, expected at most {LONGEST_LINE:,}: "
                    "write one edit per line",
                )
                continue
            text = decode(raw, number)
            if isinstance(text, Problem):
                yield text
            elif text.strip():
                yield _json_line(text, number)


def _skip_line(file: Any) -> int:
    """Read on to the end of the line without keeping it; the number of bytes passed over."""
    passed = 0
    while raw := file.readline(LONGEST_LINE):
        passed += len(raw)
        if raw.endswith(b"\n"):
            break
    return passed


def _json_line(text: str, number: int) -> Item | Problem:
    try:
        return Item(number, json.loads(text, object_pairs_hook=_object))
    except (ValueError, RecursionError) as error:
        return Problem(number, _not_json(error, f"at column {getattr(error, 'colno', 1)}"))


def _json_list(text: str) -> Iterator[Item | Problem]:
    """Read a list one element after the other, so that each is known by its line."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    position = _after_space(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        yield Problem(_line(text, position), "found no list, expected [{...}, ...]: add brackets")
        return
    position = _after_space(text, position + 1)
    more = text[position : position + 1] != "]"
    while more:
        try:
            record, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield Problem(_line(text, getattr(error, "pos", position)), _not_json(error, "here"))
            return
        yield Item(_line(text, position), record)
        position = _after_space(text, end)
        separator = text[position : position + 1]
        if separator not in (",", "]"):
            yield Problem(_line(text, position), "not JSON: expected ',' or ']' here")
            return
        more = separator == ","
        position = _after_space(text, position + 1) if more else position
    if _after_space(text, position + 1) != len(text):
        yield Problem(_line(text, position), "found more after the list, expected its end here")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"field {twice!r} stands twice, expected once")
    return record


def _not_json(error: Exception, where: str) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} {where}, expected one object in braces: mend the syntax"
    if isinstance(error, RecursionError):
        return "found lists in lists too deep to read, expected one object"
    return str(error)


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _yaml_list(text: str) -> Iterator[Item | Problem]:
    try:
        import yaml  # an extra: the core does not need it
    except ImportError as error:
        raise MissingExtra.of("pyyaml", "yaml", "read YAML") from error
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters at once
        root = loader.get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        yield _not_yaml(error)
        return
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        yield Problem(root.start_mark.line + 1, "found no list, expected a list of edits")
        return
    for node in root.value:
        line = node.start_mark.line + 1
        try:
            found = Item(line, loader.construct_document(node))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            found = _not_yaml(error, line)
        yield found


def _not_yaml(error: Exception, line: int = 1) -> Problem:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    return Problem(
        mark.line + 1 if mark else line,
        f"not YAML: {str(reason).splitlines()[0]}, expected a list of objects: mend the syntax",
    )
