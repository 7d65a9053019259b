"""Facts to trace, from files: edits, whose originals are asked about, or the published facts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from emend.datasets import read_edits
from emend.errors import BrokenFile
from emend.locate.averages import Question

FIELDS = ("prompt", "subject", "attribute")
"""What a published fact is read from."""


def read_facts(path: str | os.PathLike[str]) -> list[Question]:
    """Questions of a file, in its order.

    Args:
        path: A file of edits (see `emend.read_edits`), or a JSON list of facts as Meng et al. 2022
            published the 1,209 that they traced: objects with a ``prompt`` that holds the
            ``subject``, and an ``attribute``.

    Returns:
        (prompt, subject, answer) each; of an edit without an original the answer is None.

    Raises:
        BrokenFile: Something in it cannot be used.
        InvalidInput: It is a directory, cannot be read, or has another suffix.
        MissingFile: There is no such file.
    """
    path = Path(path)
    records = _published(path)
    if records is None:
        return [(edit.prompt, edit.subject, edit.original) for edit in read_edits(path)]
    return [_question(record, f"{path}: fact {n}") for n, record in enumerate(records)]


def _published(path: Path) -> list[Any] | None:
    """The records of a published file; None for any other, of which `read_edits` tells."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    first: Any = cast("list[Any]", data)[0] if isinstance(data, list) and data else None
    if isinstance(first, dict) and "attribute" in first and "target" not in first:
        return cast("list[Any]", data)
    return None


def _question(record: Any, place: str) -> Question:
    for field in FIELDS:
        value = cast("dict[str, Any]", record).get(field) if isinstance(record, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise BrokenFile(f"{place}: {field} is {value!r}, expected text: mend or drop it")
    return tuple(record[field] for field in FIELDS)
