"""The settings of a method: what they are, and how flags and files give them."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, Union, cast

from emend.errors import BrokenFile, InvalidInput, MissingExtra, MissingFile, UnknownName


def describe(config_type: type) -> list[dict[str, Any]]:
    """Each setting of a config dataclass: name, type, default and the docstring under it."""
    documented = field_docstrings(config_type)
    return [
        {
            "name": field.name,
            "type": str(field.type) if isinstance(field.type, str) else repr(field.type),
            "default": _default(field),
            "help": documented.get(field.name, ""),
        }
        for field in fields(config_type)
    ]


def field_docstrings(config_type: type) -> dict[str, str]:
    """The text under each field of a dataclass, read from its source and its bases'."""
    documented: dict[str, str] = {}
    for one in reversed(config_type.__mro__[:-1]):
        body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]).body
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                documented[field.target.id] = " ".join(text.value.value.split())
    return documented


def settings_for(
    method: str,
    config_type: type,
    config: Iterable[str] | None,
    assignments: Iterable[str] | None,
) -> dict[str, Any]:
    """The settings that flags give, checked against the method's config dataclass.

    Args:
        method: The method's name, for messages.
        config_type: Its config dataclass.
        config: Files (.yaml, .json) or name=value; later ones win.
        assignments: name=value; over all of `config`.

    Raises:
        UnknownName: The method has no such setting.
        InvalidInput: A value has another type than the setting.
        MissingFile: There is no such file.
        BrokenFile: The file is no mapping of settings.
    """
    given: dict[str, Any] = {}
    for source in config or ():
        is_file = "=" not in source or Path(source).exists()
        given.update(_read(Path(source)) if is_file else _assignment(source))
    for source in assignments or ():
        given.update(_assignment(source))
    return fitted(method, config_type, given)


def fitted(method: str, config_type: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings checked against a method's config dataclass, each in the type that it has there.

    Raises:
        UnknownName: The method has no such setting.
        InvalidInput: A value has another type than the setting.
    """
    hints = typing.get_type_hints(config_type)
    known = [field.name for field in fields(config_type)]
    for name in given:
        if name not in known:
            raise UnknownName(f"setting of {method}", name, known)
    return {name: _fitted(name, value, hints[name]) for name, value in given.items()}


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _assignment(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InvalidInput(f"setting {text!r} has no value, expected name=value, e.g. clamp=3")
    return {name.strip(): _parsed(value.strip())}


def _parsed(text: str) -> Any:
    """The value a person means: JSON where it is JSON, a list where there are commas."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return [_parsed(part.strip()) for part in text.split(",") if part] if "," in text else text


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InvalidInput(f"--config {path} is a directory, expected a YAML or JSON file")
    if not path.exists():
        raise MissingFile(f"there is no file {path}: --config takes a file or name=value")
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise BrokenFile(f"{path} cannot be read ({reason}): mend its syntax") from error
    if not isinstance(data, Mapping):
        raise BrokenFile(f"{path} holds no mapping, expected lines like `clamp: 3`")
    return {str(name): value for name, value in cast("Mapping[Any, Any]", data).items()}


def _yaml(text: str) -> Any:
    try:
        import yaml  # an extra: the core does not need it
    except ImportError as error:
        raise MissingExtra.of("pyyaml", "yaml", "read YAML settings") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _fitted(name: str, value: Any, hint: Any) -> Any:
    """The value in the type the setting has."""
    for kind in _alternatives(hint):
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if typing.get_origin(kind) is Literal and value in typing.get_args(kind):
            return value
        if typing.get_origin(kind) is tuple and _is_row(value, kind):
            return tuple(value if isinstance(value, (list, tuple)) else [value])
        if isinstance(kind, type) and type(value) is kind:
            return value
    raise InvalidInput(f"setting {name} is {value!r}, expected {_words(hint)}: give such a value")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_row(value: Any, kind: Any) -> bool:
    """A list, or the one element of it, whose elements are of the tuple's first type."""
    element = (*typing.get_args(kind), Any)[0]
    row = cast("list[Any]", value) if isinstance(value, (list, tuple)) else [value]
    return all(element is Any or type(one) is element for one in row)


def _words(hint: Any) -> str:
    kinds = [
        ", ".join(map(repr, typing.get_args(kind)))
        if typing.get_origin(kind) is Literal
        else "none"
        if kind is type(None)
        else getattr(kind, "__name__", str(kind))
        for kind in _alternatives(hint)
    ]
    return " or ".join(kinds)
