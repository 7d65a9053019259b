"""The line of each field of a JSON or YAML text, looked up only when a problem is reported."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def json_places(text: str) -> dict[str, int]:
    """Find the line (from 1) of every field of a valid JSON text, by its place.

    A place is written as problems have it: ``relations.capital.prompts[1]``, "" for all of it.
    """
    ends = [match.start() for match in re.finditer("\n", text)]
    found: dict[str, int] = {}
    tokens = _TOKEN.finditer(text)
    with suppress(StopIteration, RecursionError):  # what was found until then is of use
        _read_json(tokens, next(tokens), "", found, ends)
    return found


def _read_json(
    tokens: Iterator[re.Match[str]],
    token: re.Match[str],
    place: str,
    found: dict[str, int],
    ends: list[int],
) -> None:
    """Go through the value that begins with a token, to its end."""
    found.setdefault(place, bisect_right(ends, token.start()) + 1)
    closing = {"{": "}", "[": "]"}.get(token.group())
    if closing is None:
        return
    index = 0
    while (token := next(tokens)).group() != closing:
        if token.group() == ",":
            continue
        inner = f"{place}[{index}]"
        index += 1
        if closing == "}":
            inner = _below(place, str(json.loads(token.group())))
            found.setdefault(inner, bisect_right(ends, token.start()) + 1)
            next(tokens)  # the colon
            token = next(tokens)
        _read_json(tokens, token, inner, found, ends)


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def yaml_places(root: Any) -> dict[str, int]:
    """Find the line (from 1) of every field below a node of PyYAML, by its place."""
    return {place: node.start_mark.line + 1 for place, node, _ in _walk(root)}


def yaml_twice(root: Any) -> list[tuple[str, int]]:
    """Find names that occur twice in one mapping, with their lines: YAML would take the last."""
    return [(place, node.start_mark.line + 1) for place, node, again in _walk(root) if again]


def _walk(root: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield each node (of a field, that of its name), its place and whether it was there."""
    waiting: list[tuple[str, Any]] = [("", root)]
    if root is not None:
        yield "", root, False
    seen: set[int] = set()
    while waiting:
        place, node = waiting.pop()
        if node is None or id(node) in seen:  # anchors let a node stand in many places
            continue
        seen.add(id(node))
        if node.id == "sequence":
            for index, each in enumerate(node.value):
                yield f"{place}[{index}]", each, False
                waiting.append((f"{place}[{index}]", each))
        elif node.id == "mapping":
            names: set[str] = set()
            for key, each in node.value:
                name = str(key.value)
                yield _below(place, name), key, key.id == "scalar" and name in names
                names.add(name)
                waiting.append((_below(place, name), each))
