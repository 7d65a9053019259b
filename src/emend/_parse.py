"""JSON lines, JSON and YAML as plain Python, with the line of everything and no name twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from emend._places import json_places, yaml_places, yaml_twice
from emend._validate import Fault, Problems
from emend.errors import InvalidInput, MissingExtra, MissingFile, first_line

LONGEST_LINE = 1_000_000
"""Bytes. An edit with all its probes is a few thousand; a longer line is another kind of file."""

LONGEST_FILE = 10_000_000
"""Bytes of a file that is read in one piece, such as rules; a relation takes a few hundred."""


@dataclass(frozen=True)
class Item:
    """A record as the parser gave it, and the line (from 1) on which it begins."""

    line: int
    record: object


@dataclass(frozen=True)
class Document:
    """All that a file holds, and the line (from 1) of each field."""

    content: object
    line_of: Callable[[str], int | None]


def check_path(path: Path, what: str, suffixes: Collection[str]) -> None:
    """Refuse a path at which no file of the kind can stand.

    Args:
        path: The file.
        what: What it should hold, for messages: "edits".
        suffixes: The endings that are read.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or has another suffix.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file of {what}: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for {what}")
    if path.suffix.lower() not in suffixes:
        raise InvalidInput(
            f"{path} ends in {path.suffix!r}, expected one of {', '.join(suffixes)}: rename it"
        )


def items_of(path: Path, problems: Problems) -> Iterator[Item]:
    """Yield all records of a `.jsonl`, `.json` or YAML file; note what cannot be read.

    Raises:
        InvalidInput: The file cannot be opened.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    try:
        if path.suffix.lower() == ".jsonl":
            with path.open("rb") as file:
                yield from json_lines(file, problems)
            return
        text = decode(path.read_bytes(), problems)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path} ({error.strerror}): expected a readable file"
        ) from error
    if text is not None:
        yield from (json_list if path.suffix.lower() == ".json" else yaml_list)(text, problems)


def read_document(path: Path, what: str) -> Document:
    """Read all that a `.json` or YAML file holds, of at most `LONGEST_FILE` bytes.

    Args:
        path: The file.
        what: What it should hold, for messages.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, has another suffix or cannot be opened.
        BrokenFile: It cannot be read as what its suffix says.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    check_path(path, what, (".json", ".yaml", ".yml"))
    problems = Problems(str(path))
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LONGEST_FILE else b""
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({error.strerror}): check the file") from error
    if size > LONGEST_FILE:
        problems.note(Fault(f"has {size:,} bytes", f"at most {LONGEST_FILE:,}", "split it"))
        problems.check()
    text = decode(raw, problems)
    found = None
    if text is not None:
        read = _json_document if path.suffix.lower() == ".json" else _yaml_document
        found = read(text, problems)
    problems.check()
    assert found is not None  # or there would be a problem
    return found


def decode(raw: bytes, problems: Problems, line: int = 1) -> str | None:
    """Decode UTF-8, without a byte order mark; None, and a note, where bytes are no text."""
    if b"\x00" in raw:
        line += raw[: raw.index(b"\x00")].count(b"\n")
        problems.note(
            Fault("found a NUL byte", "text in UTF-8", "check the kind of file"), line=line
        )
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += raw[: error.start].count(b"\n")
        found = f"found byte 0x{raw[error.start]:02x}"
        problems.note(Fault(found, "text in UTF-8", "save the file as UTF-8"), line=line)
        return None


def json_lines(file: BinaryIO, problems: Problems) -> Iterator[Item]:
    r"""Yield the records of JSON lines, split at "\n" alone; blank lines are skipped."""
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
            found = f"found a line of {len(raw) + _skip_line(file):,} bytes"
            fault = Fault(found, f"at most {LONGEST_LINE:,}", "write one record per line")
            problems.note(fault, line=number)
            continue
        text = decode(raw, problems, number)
        if text is None or not text.strip():
            continue
        try:
            record = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            where = f"at column {getattr(error, 'colno', 1)}"
            problems.note(_not_json(error, where), line=number)
        else:
            yield Item(number, record)


def json_list(text: str, problems: Problems) -> Iterator[Item]:
    """Yield the elements of a JSON list one by one, so that each is known by its line."""
    lines = _Lines(text)
    position = _after_space(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        fault = Fault("found no list", "[{...}, ...]", "add brackets")
        problems.note(fault, line=lines.at(position))
        return
    position = _after_space(text, position + 1)
    more = text[position : position + 1] != "]"
    while more:
        found = lines.value_at(position, problems)
        if found is None:
            return
        yield found[0]
        position = found[1]
        separator = text[position : position + 1]
        if separator not in (",", "]"):
            fault = Fault("is not JSON here", "',' or ']'", "fix the syntax")
            problems.note(fault, line=lines.at(position))
            return
        more = separator == ","
        position = _after_space(text, position + 1) if more else position
    if _after_space(text, position + 1) != len(text):
        fault = Fault("found more after the list", "its end here", "remove the rest")
        problems.note(fault, line=lines.at(position))


def json_values(text: str, problems: Problems) -> Iterator[Item]:
    """Yield JSON values that follow one another, each over as many lines as it takes."""
    lines = _Lines(text)
    position = _after_space(text, 0)
    while position < len(text):
        found = lines.value_at(position, problems)
        if found is None:
            return
        yield found[0]
        position = found[1]


class _Lines:
    """Lines and JSON values at positions that mostly grow, so that each line is counted once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position, self._line = 0, 1

    def at(self, position: int) -> int:
        """Return the line (from 1) of a position."""
        if position < self._position:
            return self._text.count("\n", 0, position) + 1
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line

    def value_at(self, position: int, problems: Problems) -> tuple[Item, int] | None:
        """Read the value at a position, and where the next may begin; None, and a note, if none."""
        try:
            record, end = _DECODER.raw_decode(self._text, position)
        except (ValueError, RecursionError) as error:
            line = self.at(getattr(error, "pos", position))
            problems.note(_not_json(error, "here"), line=line)
            return None
        return Item(self.at(position), record), _after_space(self._text, end)


def yaml_list(text: str, problems: Problems) -> Iterator[Item]:
    """Yield the elements of a YAML list, each with its line.

    Raises:
        MissingExtra: pyyaml is not installed.
    """
    yaml = _yaml()
    try:
        loader = yaml.SafeLoader(text)  # refuses control characters at once
        root = loader.get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        _note_yaml(error, problems)
        return
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        fault = Fault("found no list", "a list of objects", "begin each with '- '")
        problems.note(fault, line=root.start_mark.line + 1)
        return
    for node in root.value:
        line = node.start_mark.line + 1
        if _note_twice(node, problems):
            continue
        try:
            record = loader.construct_document(node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            _note_yaml(error, problems, line)
        else:
            yield Item(line, record)


def _json_document(text: str, problems: Problems) -> Document | None:
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        problems.note(_not_json(error, "here"), line=getattr(error, "lineno", None))
        return None
    return Document(content, _lines_in(partial(json_places, text)))


def _yaml_document(text: str, problems: Problems) -> Document | None:
    yaml = _yaml()
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if _note_twice(root, problems):
            return None
        content = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        _note_yaml(error, problems)
        return None
    return Document(content, _lines_in(partial(yaml_places, root)))


def _lines_in(places: Callable[[], dict[str, int]]) -> Callable[[str], int | None]:
    """Make a function that finds the line of a place, or of the nearest place above it."""
    found = lru_cache(maxsize=1)(places)

    def line_of(place: str) -> int | None:
        while place and place not in found():
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        return found().get(place)

    return line_of


def _note_twice(root: Any, problems: Problems) -> bool:
    found = yaml_twice(root)
    for place, line in found:
        problems.note(_twice_fault(place), line=line)
    return bool(found)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _Twice(twice)
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


class _Twice(ValueError):
    """A name that occurs twice in one object."""


def _twice_fault(name: object) -> Fault:
    return Fault(f"field {str(name)[:40]!r} occurs twice", "it once", "remove one")


def _not_json(error: Exception, where: str) -> Fault:
    if isinstance(error, json.JSONDecodeError):
        return Fault(f"is not JSON: {error.msg} {where}", "an object in braces", "fix the syntax")
    if isinstance(error, _Twice):
        return _twice_fault(error)
    if isinstance(error, RecursionError):
        return Fault("holds lists in lists too deep to read", "one object", "make it flatter")
    return Fault(f"is not JSON: {first_line(error)}", "an object in braces", "fix the syntax")


def _note_yaml(error: Exception, problems: Problems, line: int = 1) -> None:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None)
    found = f"is not YAML: {str(reason).strip() if reason else first_line(error)}"
    fault = Fault(found, "an object, or a list of them", "fix the syntax")
    problems.note(fault, line=mark.line + 1 if mark else line)


def _yaml() -> Any:
    try:
        import yaml  # an extra: the core does not need it
    except ImportError as error:
        raise MissingExtra.of("pyyaml", "yaml", "read YAML") from error
    return yaml


def _skip_line(file: BinaryIO) -> int:
    """Read on to the end of the line without keeping it; the number of bytes passed over."""
    passed = 0
    while raw := file.readline(LONGEST_LINE):
        passed += len(raw)
        if raw.endswith(b"\n"):
            break
    return passed


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
