"""Reading the plain content of a file of rules or a suite, and collecting what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile

SUFFIXES = (".json", ".yaml", ".yml")
LONGEST_FILE = 10_000_000
"""Bytes; a relation takes a few hundred."""
_MOST_SHOWN = 50


class Problems:
    """What is wrong with a file, one line for each thing.

    Args:
        where: What the file is called.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: list[str] = []

    def add(self, place: str, message: str) -> None:
        """Note what is wrong at a place, such as ``relations.capital.inverse``."""
        self.lines.append(f"{self.where}: {place}: {message}")

    def check(self) -> None:
        """Refuse the file if anything was noted.

        Raises:
            BrokenFile: With a line about each thing.
        """
        if not self.lines:
            return
        shown = self.lines[:_MOST_SHOWN]
        if len(self.lines) > len(shown):
            shown.append(f"... and {len(self.lines) - len(shown)} more")
        if len(shown) == 1:
            raise BrokenFile(shown[0])
        raise BrokenFile(f"{self.where} has {len(self.lines)} problems:", shown)


def load_file(path: Path, what: str = "rules") -> object:
    """What a JSON or YAML file holds, as plain Python.

    Args:
        path: The file.
        what: What it should hold, for messages.

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or has another suffix.
        BrokenFile: It cannot be read as what its suffix says.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file of {what}: name a file in it")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for the {what}")
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{path} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}: rename it"
        )
    if path.stat().st_size > LONGEST_FILE:
        raise BrokenFile(
            f"{path} has {path.stat().st_size:,} bytes, expected at most {LONGEST_FILE:,}: split it"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenFile(
            f"{path}: byte {error.start} is not UTF-8, expected text: save the file as UTF-8"
        ) from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path} ({error.strerror}): check the file") from error
    return _from_json(path, text) if path.suffix.lower() == ".json" else _from_yaml(path, text)


def _from_json(path: Path, text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        at = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise BrokenFile(f"{path}{at}: not JSON: {said}: mend the syntax") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands twice in one object, expected once")
    return dict(pairs)


def _from_yaml(path: Path, text: str) -> object:
    try:
        import yaml  # an extra: the core does not need it
    except ImportError as error:
        raise MissingExtra.of("pyyaml", "yaml", "read YAML") from error
    try:
        twice = _twice(yaml, yaml.compose(text, yaml.SafeLoader))
        record: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}" if mark else ""
        said = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise BrokenFile(f"{path}{at}: not YAML: {said}: mend the syntax") from error
    if twice is not None:
        raise BrokenFile(f"{path}:{twice[1]}: {twice[0]!r} stands twice, expected once: remove one")
    return record


def _twice(yaml: Any, root: Any) -> tuple[str, int] | None:
    """A name that stands twice in one mapping, and its line: YAML would take the last."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:  # anchors let a node stand in many places
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        if isinstance(node, yaml.MappingNode):
            names = set[str]()
            for key, value in node.value:
                if key.value in names if isinstance(key, yaml.ScalarNode) else False:
                    return str(key.value), key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    names.add(key.value)
                waiting.append(value)
    return None
