"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emend.errors import InvalidInput


@contextmanager
def written_aside(path: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """A path beside `path` to write to, renamed to `path` when the block ends well.

    A reader sees the old file or the new one, never a half of either. When the block raises,
    the old file stays and the file beside it is removed.

    Args:
        path: The file to write. Its directory is made where it is not there.

    Raises:
        InvalidInput: `path` is a directory, or its directory cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory, expected a file to write: name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot make the directory {path.parent} ({error.strerror}): choose another path"
        ) from error
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in UTF-8, aside and renamed."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], data: Mapping[str, Any]) -> None:
    """Write `data` to `path` as indented JSON, aside and renamed.

    Raises:
        ValueError: A number in `data` is not finite, which JSON cannot hold.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
