"""Between an `Edit` and the plain record (mapping) that files hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar, cast

from emend.edits._check import check_text
from emend.edits._edit import Edit, Probe, check_prompt
from emend.errors import BrokenFile, InvalidInput, nearest

T = TypeVar("T")
_REQUIRED = ("prompt", "subject", "target")


def edit_to_record(edit: Edit) -> dict[str, Any]:
    """The plain record of an edit, in the order of its fields; what is not set is left out."""
    record: dict[str, Any] = {"id": edit.id}
    record.update((name, getattr(edit, name)) for name in _REQUIRED)
    for name in ("original", "relation"):
        if getattr(edit, name) is not None:
            record[name] = getattr(edit, name)
    if edit.probes:
        record["probes"] = [
            {"group": probe.group, "prompt": probe.prompt, "answers": list(probe.answers)}
            for probe in edit.probes
        ]
    return record


def edit_from_record(record: object) -> Edit:
    """The edit a plain record describes.

    Raises:
        BrokenFile: Fields are missing, unknown or cannot be used; `problems` names all of them.
    """
    edit, problems = parse_edit(record)
    if edit is None:
        raise BrokenFile("; ".join(problems))
    return edit


def parse_edit(record: object) -> tuple[Edit | None, list[str]]:
    """The edit of a record, or None and a line for each thing wrong with it."""
    if not isinstance(record, Mapping):
        return None, [f"found {_kind(record)}, expected an object with {', '.join(_REQUIRED)}"]
    given = cast("Mapping[str, Any]", record)
    problems = _names(given, Edit, _REQUIRED)
    if "prompt" in given:
        _note(problems, partial(check_prompt, given["prompt"]))
    for name in ("subject", "target", "original", "relation", "id"):
        if name in given and (name in _REQUIRED or given[name] is not None):
            trimmed = name in ("subject", "id")
            _note(problems, partial(check_text, name, given[name], trimmed=trimmed))
    probes = _probes(given.get("probes"), problems)
    if problems:
        return None, problems
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    values["probes"] = tuple(probes)
    return Edit(**values), []


def _probes(records: object, problems: list[str]) -> list[Probe]:
    if records is None:
        return []
    if not isinstance(records, list):
        problems.append(f"probes is {_kind(records)}, expected a list of objects")
        return []
    probes: list[Probe] = []
    for index, record in enumerate(cast("list[object]", records)):
        where = f"probes[{index}]: "
        if not isinstance(record, Mapping):
            problems.append(f"{where}found {_kind(record)}, expected an object")
            continue
        given = cast("Mapping[str, Any]", record)
        faults = _names(given, Probe, ("group", "prompt", "answers"))
        if not faults:
            probe = _note(faults, partial(Probe, **given))
            probes.extend([probe] if probe else [])
        problems.extend(where + fault for fault in faults)
    return probes


def _names(given: Mapping[str, Any], kind: type, required: tuple[str, ...]) -> list[str]:
    """What is wrong with the names of a record's fields."""
    known = [field.name for field in fields(kind)]
    problems = [
        f"{name} is missing, expected text: add it" for name in required if name not in given
    ]
    for name in given:
        if name not in known:
            near = nearest(str(name), known)
            hint = f"did you mean {near!r}?" if near else "remove it"
            problems.append(f"unknown field {name!r}, expected {', '.join(known)}: {hint}")
    return problems


def _note(problems: list[str], check: Callable[[], T]) -> T | None:
    try:
        return check()
    except InvalidInput as error:
        problems.append(str(error))
        return None


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "a text", "bool": "true or false"}
    return "null" if value is None else names.get(type(value).__name__, "a number")
