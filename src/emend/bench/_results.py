"""Results in a file of JSON lines, found again by all that they depend on: a run can resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emend import _identity
from emend._io import append_json_line, read_kept_lines
from emend.errors import InvalidInput


class ResultsFile:
    """A file that grows by one line per measured point.

    Args:
        path: The file; None keeps results in memory only.
        kind: What is measured, such as "sweep"; a part of the key.
        inputs: All that every result depends on besides its point, as `_identity.key` takes it.
        about: Fields of each line that are for people to read.

    Raises:
        InvalidInput: The path is a directory.
    """

    def __init__(
        self,
        path: str | Path | None,
        kind: str,
        inputs: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and self.path.is_dir():
            raise InvalidInput(f"{path} is a directory, expected a file of results: name one in it")
        self.key = _identity.key(kind, **inputs)
        self.about = dict(about or {})
        read = read_kept_lines(self.path) if self.path else []
        self.lines = [one for one in read if isinstance(one, dict) and one.get("key") == self.key]

    def find(self, point: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the line of a point that was measured before."""
        for line in self.lines:
            if all(name in line and line[name] == value for name, value in point.items()):
                return line
        return None

    def add(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Add a line, to the file at once."""
        full = {"key": self.key, **self.about, **line}
        self.lines.append(full)
        if self.path is not None:
            append_json_line(self.path, full)
        return full
