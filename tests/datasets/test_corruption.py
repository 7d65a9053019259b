"""Damaged files: a clear error or a reported record, and never a traceback or a silent loss."""

from __future__ import annotations

import json
import random

import pytest

from emend import datasets
from emend.datasets import read
from emend.errors import EmendError

EXAMPLES = {one.name: one for one in datasets.formats()}
JUNK = (None, 7, -1.5, True, [], {}, "", "   ", "\x00", "x" * 200_000, [["a"], {}], {"a": {"b": 1}})
FILES_A_FORM = 130
"""Damaged files of each form; 10,000 in all were tried once with 1,250."""


def places(value, path=()):
    """Yield the path of every field of a record."""
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(record, draw):
    """Return a record with one field deleted or replaced."""
    record = json.loads(json.dumps(record))
    *way, last = draw.choice(list(places(record)))
    holder = record
    for key in way:
        holder = holder[key]
    if draw.random() < 0.4:
        del holder[last]
    else:
        holder[last] = draw.choice(JUNK)
    return record


def encoded(text, draw):
    """Return the bytes of a file, one in four of them truncated, spliced or in another encoding."""
    data = text.encode()
    kind = draw.randrange(12)
    if kind == 0:
        return data[: draw.randrange(len(data))]
    if kind == 1:
        at = draw.randrange(len(data))
        return data[:at] + bytes(draw.randrange(256) for _ in range(3)) + data[at:]
    if kind == 2:
        return text.encode(draw.choice(["utf-16", "utf-32", "latin-1"]), errors="replace")
    return data


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_damage_is_reported_and_nothing_is_lost_silently(tmp_path, name):
    draw = random.Random(name)
    path = tmp_path / "records.json"
    example = EXAMPLES[name].example
    for number in range(FILES_A_FORM):
        records = [damaged(example, draw), example]
        lines = draw.random() < 0.5
        text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=1)
        path.write_bytes(encoded(text, draw))
        try:
            found = read(path)
        except EmendError:  # nothing can be read; its one line is asserted in test_formats
            continue
        # Each record is an edit, is joined to one, or is named among what was not read.
        each = 2 if name == "lre" else 1
        if len(found.edits) + found.joined < 2 * each:
            assert found.problems.found or found.left_out.found, (number, path.read_bytes()[:500])
