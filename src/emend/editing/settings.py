"""The content of a method's settings, for the keys of what is kept (`_identity.key`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from emend import _identity
from emend.editing.sources import texts_for
from emend.models import ModelView


def settings_content(config: Any, view: ModelView, tokenizer: Any) -> dict[str, Any]:
    """Give all settings of a method with the content of what they name.

    Settings left at their defaults are in it, since a default may change. The texts of the setting
    ``texts`` enter by their content, wherever they are read from, and so does every file or
    directory whose path a setting is.

    Args:
        config: Settings of a method, a dataclass, as `Method.configure` gives them.
        view: The model; where no texts are named, it decides which are taken.
        tokenizer: Its tokenizer.

    Returns:
        For `_identity.key`.

    Raises:
        InvalidInput: A source of texts cannot be read.
    """
    given = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    found: dict[str, Any] = {}
    if "texts" in given:
        source = texts_for(view, tokenizer, given.pop("texts"))
        found["texts"] = [source.identity, source.packed]
    files = {name: _content_of(v) for name, v in given.items() if isinstance(v, (str, Path))}
    return {**found, "settings": given, "files": files}


def _content_of(value: str | Path) -> str | None:
    """The content of the file or directory that a setting names; None where there is none."""
    try:
        path = Path(value)
        if path.is_dir():
            return _identity.directory_digest(path)
        return _identity.file_digest(path) if path.is_file() else None
    except (OSError, ValueError):  # no path: it is too long, or holds what a path cannot
        return None
