"""The settings of a method: what they are, and how flags and files give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

from emend._parse import read_document
from emend._settings import from_file, from_text, hints_of, words_of
from emend._signature import setting_texts
from emend.errors import BrokenFile, InvalidInput, MissingFile


def describe(config_type: type) -> list[dict[str, Any]]:
    """Return each setting of a config dataclass: name, type and range, default, docstring."""
    documented = setting_texts(config_type)
    hints = hints_of(config_type.__name__, config_type, ())
    return [
        {
            "name": field.name,
            "type": words_of(hints[field.name]),
            "default": _default(field),
            "help": documented.get(field.name, ""),
        }
        for field in fields(config_type)
    ]


def settings_for(
    method: str, config_type: type, config: Iterable[str] | None, assignments: Iterable[str] | None
) -> dict[str, Any]:
    """Return the settings that flags give, checked against the method's config dataclass.

    Args:
        method: The method's name, for messages.
        config_type: Its config dataclass.
        config: Files (.yaml, .json) or name=value; later ones win.
        assignments: name=value; over all of `config`.

    Raises:
        UnknownName: The method has no such setting.
        InvalidInput: A value has another type than the setting, or is outside its range.
        MissingFile: There is no such file.
        BrokenFile: The file is no mapping of settings.
    """
    given: dict[str, Any] = {}
    for source in config or ():
        if "=" in source and not Path(source).exists():
            given.update(_assigned(method, config_type, source))
        else:
            given.update(from_file(method, config_type, _read_config(Path(source))))
    for source in assignments or ():
        given.update(_assigned(method, config_type, source))
    return given


def as_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings for a file of results: JSON-able, a source of texts by its name."""
    plain = (bool, int, float, str, tuple, type(None))
    return {name: v if isinstance(v, plain) else str(v) for name, v in settings.items()}


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _assigned(method: str, config_type: type, text: str) -> dict[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise InvalidInput(f"setting {text!r} has no value, expected name=value, e.g. clamp=3")
    return {name: from_text(method, config_type, name, value)}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise MissingFile(f"there is no file {path}: --config takes a file or name=value")
    content = read_document(path, "settings").content
    if not isinstance(content, Mapping):
        raise BrokenFile(f"{path} holds no mapping, expected lines like `clamp: 3`")
    return {str(name): value for name, value in cast("Mapping[Any, Any]", content).items()}
