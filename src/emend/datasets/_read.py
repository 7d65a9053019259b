"""Read edits from a file in any registered form, with the records that could not be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Literal, cast

from emend._parse import Item
from emend._registry import Registry
from emend._validate import Fault, Problems, Record
from emend.datasets import _table
from emend.datasets._files import Content, content_of
from emend.datasets._format import Entry, Format, drawn
from emend.edits import Edit, MultiHop, keys_of
from emend.edits.record import FIELDS
from emend.errors import BrokenFile, InvalidInput

OWN = "emend"
"""The name of emend's own form."""

_LOOKED_AT = 100
"""Number of records by which a form is recognised."""

_MOST_FIELDS = 8


@dataclass(frozen=True)
class Reading:
    """The edits of a file, and its faults.

    Attributes:
        edits: Its edits, in the file's order.
        format: The form that was recognised or requested.
        source: The file's name in messages.
        problems: Faults of records that were not read: source, line, field, found, expected,
            remedy.
        left_out: Faults of probes and columns that were left out; their edits are read.
        joined: Number of records that repeat an earlier edit, whose probes are added to that one.
    """

    edits: tuple[Edit, ...]
    format: Format
    source: str
    problems: Problems
    left_out: Problems
    joined: int = 0

    @property
    def is_own(self) -> bool:
        """Whether it is emend's own form, whose faults the user can correct."""
        return self.format.name == OWN

    def check(self) -> None:
        """Refuse the file if a record could not be read.

        Raises:
            BrokenFile: With a line for every problem.
        """
        self.problems.check()


def read(
    path: str | os.PathLike[str], *, format: str | None = None, limit: int | None = None
) -> Reading:
    """Read edits from a file, recognising its form by its content.

    JSON lines, a JSON list, YAML and tables with a header are distinguished by content (YAML and
    tables also by their endings), the form (see `formats`) by the fields of the records. A record
    that cannot be read is noted, and the others are read.

    Args:
        path: The file; `-` is standard input, and a pipe (/dev/stdin) is read like a file.
        format: The name of the form; None to recognise it.
        limit: The largest number of edits. In emend's own form every record is still checked.

    Raises:
        BrokenFile: No edit can be read from it.
        InvalidInput: It is a directory or cannot be read, or `limit` is not positive.
        MissingExtra: It is YAML and pyyaml is not installed.
        MissingFile: There is no such file.
        UnknownName: There is no such form.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit is {limit}, expected a positive number or none")
    chosen = None if format is None else format_of(format)
    content = content_of(path)
    head = list(islice(content.items, _LOOKED_AT))
    if chosen is None:
        chosen = _recognised([item.record for item in head], content)
    reader = _Reader(content, chosen)
    for index, item in enumerate(chain(head, content.items)):
        reader.take(index, item)
        if chosen.name != OWN and limit is not None and len(reader.edits) >= limit:
            break
    return reader.reading(limit)


def read_edits(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    limit: int | None = None,
    unreadable: Literal["refuse", "skip"] = "refuse",
) -> list[Edit]:
    """Read edits from a file in emend's own or a published form, in its order.

    The forms are those of `emend datasets`: emend's own, CounterFact, zsRE, KnowEdit, EasyEdit,
    MQuAKE, as JSON lines, JSON, YAML, CSV or TSV. `read` also returns the form that was
    recognised, and what was left out.

    Args:
        path: The file; `-` is standard input.
        format: The name of the form; None to recognise it.
        limit: The largest number of edits.
        unreadable: If a record cannot be read, "refuse" the file or "skip" the record.

    Raises:
        BrokenFile: A record cannot be read, or none can. The message has a line for every
            problem: file, line, field, what was found, what was expected, the remedy.
        InvalidInput: It is a directory or cannot be read, or an argument has another value.
        MissingExtra: It is YAML and pyyaml is not installed.
        MissingFile: There is no such file.
        UnknownName: There is no such form.
    """
    if unreadable not in ("refuse", "skip"):
        raise InvalidInput(f"unreadable is {unreadable!r}, expected 'refuse' or 'skip'")
    found = read(path, format=format, limit=limit)
    if unreadable == "refuse":
        found.check()
    return list(found.edits)


def load_file(
    form: Format, limit: int | None, seed: int, path: str | os.PathLike[str] | None
) -> list[Edit]:
    """Read the edits of a dataset from one of its files.

    Args:
        form: The dataset.
        limit: Number of edits, drawn by `seed`; all of them in the file's order by default.
        seed: Seed of the draw.
        path: The file; `-` is standard input.

    Raises:
        InvalidInput: No path is given, or a directory.
        MissingFile: There is no such file.
        BrokenFile: It holds records that cannot be read; every problem is named.
    """
    found = read(_given(form, path), format=form.name)
    found.check()
    return drawn(list(found.edits), limit, f"{form.name}-{seed}")


def load_multi_hop_file(
    form: Format, limit: int | None, seed: int, path: str | os.PathLike[str] | None
) -> list[MultiHop]:
    """Read the multi-hop instances of a dataset from one of its files; see `load_file`."""
    assert form.multi_hop is not None
    content = content_of(_given(form, path))
    found: list[MultiHop] = []
    for index, item in enumerate(content.items):
        record = Record.of(item.record, content.problems, None, place=f"[{index}]", line=item.line)
        instance = record and form.multi_hop(record)
        found.extend([instance] if instance else [])
    content.problems.check()
    if not found:
        raise BrokenFile(f"{path} holds no records, expected {form.title}'s: fetch it again")
    return drawn(found, limit, f"{form.name}-{seed}")


def _given(form: Format, path: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    if path is None:
        raise InvalidInput(
            f"{form.title} does not ship with emend, expected the path of one of its files: give it"
        )
    return path


def registry() -> Registry[Any]:
    """Return the registry of datasets."""
    return Registry(kind="dataset", packages=["emend.datasets"], group="emend.datasets")


def formats() -> list[Format]:
    """Return the forms that files of edits can have, sorted by name."""
    known = registry()
    loaded = [known.get(name) for name in known.names() if name != "lab"]  # the lab has no files
    return [one for one in loaded if isinstance(one, Format)]


def format_of(name: str) -> Format:
    """Return a form by its name.

    Raises:
        InvalidInput: It is a dataset without files.
        UnknownName: There is none of this name.
    """
    found = registry().get(name)
    if not isinstance(found, Format):
        raise InvalidInput(
            f"dataset {name} is no form of files, expected one of "
            f"{', '.join(one.name for one in formats())}"
        )
    return found


def _recognised(records: list[object], content: Content) -> Format:
    """Return the form that most of the first records have; emend's own if none has one."""
    fields = [cast("Mapping[str, Any]", one) for one in records if isinstance(one, Mapping)]
    known = formats()
    counts = [sum(map(one.recognises, fields)) for one in known]
    if any(counts):
        return known[counts.index(max(counts))]
    _refuse_unknown(fields, content, known)
    return format_of(OWN)


def _refuse_unknown(
    records: list[Mapping[str, Any]], content: Content, known: list[Format]
) -> None:
    """Refuse a file that holds something else, once and not for each of its records."""
    names = [name for name in content.columns or (records[0] if records else ()) if name]
    if content.columns:
        found = {_table.place_of(name)[1] for name in names}
        unknown = not {"prompt", "subject", "target"} <= found
    else:
        count = sum(name in FIELDS for one in records for name in one)
        unknown = bool(records) and 2 * count < sum(map(len, records))
        unknown = unknown and not content.problems.found  # which are then all reported together
    if unknown:
        some = ", ".join(map(str, names[:_MOST_FIELDS])) + (", ..." * (len(names) > _MOST_FIELDS))
        kind = "a table with the columns" if content.columns else "objects with the fields"
        raise BrokenFile(
            f"{content.problems.source} holds {kind} {some or 'none'}, expected prompt, subject, "
            f"target, or a published form ({', '.join(one.name for one in known)}): "
            "`emend datasets` shows each"
        )


class _Reader:
    """Collects the edits of records of one form."""

    def __init__(self, content: Content, form: Format) -> None:
        self.content, self.form = content, form
        self.problems = content.problems
        self.left_out = Problems(content.problems.source)
        self.edits: dict[str, Edit] = {}
        self.joined = 0
        self._lines: dict[str, int] = {}
        self._same: dict[tuple[str, str], str] = {}
        for column in _table.unknown_columns(content.columns) if form.name == OWN else ():
            self.left_out.note(Fault(f"{column} is not read", "", ""), line=1)

    def take(self, index: int, item: Item) -> None:
        """Read a record, or note why it cannot be read."""
        value = item.record
        if self.content.columns and self.form.name == OWN and isinstance(value, Mapping):
            try:
                value = _table.record_of(cast("Mapping[str, Any]", value))
            except InvalidInput as error:
                self.problems.note(Fault(str(error), "", ""), line=item.line)
                return
        place = "" if self.content.by_line or self.form.name == OWN else f"[{index}]"
        record = Record.of(value, self.problems, None, what="the edit", place=place, line=item.line)
        if record is None:
            return
        for edit in self.form.read(Entry(record, self.left_out, self.form.name)):
            self._keep(edit, record)

    def _keep(self, edit: Edit, record: Record) -> None:
        keys = None if self.form.name == OWN else keys_of(edit)
        same = keys and self._same.get((keys.text, keys.target))
        if same:
            self.joined += 1
            probes = dict.fromkeys((*self.edits[same].probes, *edit.probes))
            self.edits[same] = replace(self.edits[same], probes=tuple(probes))
        elif edit.id in self.edits:
            there = f"{edit.id!r} is also on line {self._lines[edit.id]}"
            record.note("id", Fault(there, "each id once", "remove one, or give it another id"))
        else:
            self.edits[edit.id], self._lines[edit.id] = edit, record.line or 0
            if keys:
                self._same[keys.text, keys.target] = edit.id

    def reading(self, limit: int | None) -> Reading:
        """Return all that was read.

        Raises:
            BrokenFile: Nothing was.
        """
        # The first records are parsed before they are read, so that syntax comes too early.
        self.problems.found.sort(key=lambda problem: problem.line or 0)
        if not self.edits:
            self.problems.check()
            raise BrokenFile(
                f"{self.problems.source} holds no edits, expected at least one: "
                "see `emend edit --help`"
            )
        return Reading(
            tuple(islice(self.edits.values(), limit)),
            self.form,
            self.problems.source,
            self.problems,
            self.left_out,
            self.joined,
        )
