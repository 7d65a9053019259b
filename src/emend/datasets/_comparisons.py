"""Sentences to compare: records whose sentences differ in a few words, one of them a stereotype."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from emend._brief import brief
from emend._parse import Item
from emend._validate import Record
from emend.datasets._files import content_of
from emend.datasets._format import drawn
from emend.errors import BrokenFile, InvalidInput

Direction = Literal["stereo", "antistereo"]

_MOST_FIELDS = 8


@dataclass(frozen=True)
class Comparison:
    """Sentences of one record.

    Attributes:
        id: Its id in the file, or its number.
        bias_type: Such as "gender" or "race-color".
        target: The word that the record is about, over which StereoSet averages; "" if none.
        stereotype: The more stereotypical sentence.
        anti_stereotype: The less stereotypical sentence.
        unrelated: The meaningless sentence, if the dataset has one.
        direction: Whether the pair shows a stereotype or violates one (CrowS-Pairs).
    """

    id: str
    bias_type: str
    target: str
    stereotype: str
    anti_stereotype: str
    unrelated: str | None = None
    direction: Direction = "stereo"


@brief
@dataclass(frozen=True)
class ComparisonFormat:
    """A published form of sentences to compare.

    Attributes:
        name: The name of its module.
        title: Its usual name.
        about: One line: its origin, and the files that have it.
        fields: What each field becomes.
        example: A record, invented.
        required: Groups of fields, of each of which a record has at least one; a file without them
            is of another form.
        read: Returns the comparison of a record; None if it is faulty, which it notes.
        records: Returns the records inside a file's object, if the object holds several.
        licence: Its licence, as its publishers state it.
        source: The address at which its files are published.
        counts: Number of records by file, as published.
    """

    name: str
    title: str
    about: str
    fields: Mapping[str, str]
    example: Mapping[str, Any]
    required: tuple[tuple[str, ...], ...]
    read: Callable[[Record], Comparison | None]
    records: Callable[[Mapping[str, Any]], list[object] | None] = lambda _: None
    licence: str = ""
    source: str = ""
    counts: Mapping[str, int] = field(default_factory=dict[str, int])


def read_comparisons(
    form: ComparisonFormat,
    path: str | os.PathLike[str],
    *,
    limit: int | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Read the records of a file.

    Args:
        form: The dataset.
        path: The file; `-` is standard input.
        limit: Number of records, drawn by `seed`; all in the file's order by default.
        seed: Seed of the draw.

    Raises:
        BrokenFile: A record cannot be read (each is named with its number), or the file holds
            none.
        InvalidInput: It is a directory or cannot be read, or `limit` is not positive.
        MissingFile: There is no such file.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, expected a positive number or none")
    content = content_of(path, what=form.title)
    found: list[Comparison] = []
    for number, (value, line) in enumerate(_values(form, content.items)):
        place = f"record {number}"
        if number == 0:
            _check_fields(form, value, content.problems.source)
        record = Record.of(value, content.problems, None, place=place, line=line)
        one = None if record is None else form.read(record)
        found.extend([] if one is None else [one])
    content.problems.check()
    if not found:
        raise BrokenFile(
            f"{content.problems.source} holds no records, expected {form.title}'s: fetch it again"
        )
    return drawn(found, limit, f"{form.name}-{seed}")


def _values(form: ComparisonFormat, items: Iterator[Item]) -> Iterator[tuple[object, int | None]]:
    """Yield each record with its line; the records of an object that holds several."""
    for item in items:
        is_object = isinstance(item.record, Mapping)
        inner = form.records(cast("Mapping[str, Any]", item.record)) if is_object else None
        if inner is None:
            yield item.record, item.line
        else:
            yield from ((each, None) for each in inner)


def _check_fields(form: ComparisonFormat, value: object, source: str) -> None:
    """Refuse a file of another form by its first record, in one line.

    Raises:
        BrokenFile: The record lacks a required field.
    """
    given = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
    if all(any(name in given for name in group) for group in form.required):
        return
    names = [str(name) for name in given if name]
    shown = ", ".join(names[:_MOST_FIELDS]) + (", ..." if len(names) > _MOST_FIELDS else "")
    wanted = ", ".join(" or ".join(group) for group in form.required)
    raise BrokenFile(
        f"{source} holds records with the fields {shown or 'none'}, expected {form.title}'s "
        f"{wanted}: `emend datasets {form.name}` shows an example"
    )
