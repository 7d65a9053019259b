"""What a sweep found at each layer, kept in a file so that an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emend import _identity
from emend._io import append_json_line, read_kept_lines
from emend.errors import InvalidInput


@dataclass(frozen=True)
class Row:
    """What was measured at one layer or window of layers, in shares from 0 to 1.

    Attributes:
        setting: What to pass to the method: ``{"layer": 3}`` or ``{"layers": [1, 2, 3]}``.
        reliability: Says the new fact in the edit's own words.
        generalization: Says it in other words.
        neighborhood: Says the same as before of neighbouring facts.
        locality: The same over all kinds of facts that should stay.
        seconds_per_edit: Time of one edit, without what is computed once for the model.
        error: Why this layer cannot be edited; None where it can.
    """

    setting: Mapping[str, Any]
    reliability: float | None = None
    generalization: float | None = None
    neighborhood: float | None = None
    locality: float | None = None
    seconds_per_edit: float | None = None
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Harmonic mean of reliability, generalization and specificity, of those measured.

        Specificity is the neighborhood (as in CounterFact's Score), or else the locality.
        """
        specificity = self.locality if self.neighborhood is None else self.neighborhood
        values = [self.reliability, self.generalization, specificity]
        known = [value for value in values if value is not None]
        if not known:
            return None
        return len(known) / sum(1 / value for value in known) if all(known) else 0.0

    @property
    def flag(self) -> str:
        """The setting as it is given on the command line, e.g. "layers=1,2,3"."""
        (name, value), *_ = self.setting.items()
        return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"

    def rank(self) -> tuple[float, ...]:
        """Sorts the best first; of equals the one with the better locality, then the lower."""
        (value, *_) = self.setting.values()
        last = value[-1] if isinstance(value, list) else value
        return (self.error is not None, -(self.score or 0.0), -(self.locality or 0.0), last)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data, with the Score."""
        return {**asdict(self), "score": self.score}


class Records:
    """Rows in a file of JSON lines, found again by what they depend on.

    Args:
        path: The file; None keeps nothing.
        inputs: All that every row depends on, as `_identity.key` takes it.
        about: What stands in each line for people to read.

    Raises:
        InvalidInput: The path is a directory.
    """

    def __init__(
        self, path: str | Path | None, inputs: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and self.path.is_dir():
            raise InvalidInput(f"{path} is a directory, expected a file of results: name one in it")
        self.key = _identity.key("sweep", **inputs)
        self.about = dict(about)
        self.rows = self._read()

    def find(self, setting: Mapping[str, Any]) -> Row | None:
        """The row of a setting that was measured before."""
        return next((row for row in self.rows if row.setting == setting), None)

    def keep(self, row: Row) -> None:
        """Add a row to the file at once."""
        if self.path is None:
            return
        append_json_line(self.path, {"key": self.key, **self.about, **row.to_dict()})

    def _read(self) -> list[Row]:
        names = Row.__dataclass_fields__
        kept = read_kept_lines(self.path) if self.path else []
        return [
            Row(**{name: data[name] for name in names if name in data})
            for data in kept
            if isinstance(data, dict) and data.get("key") == self.key
        ]
