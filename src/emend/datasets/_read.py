"""Reading edits from a file in any form that is known, with what could not be read."""

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
from emend.datasets._content import Content, content_of
from emend.datasets._format import Format
from emend.datasets._published import Entry
from emend.edits import Edit, keys_of
from emend.edits.record import FIELDS
from emend.errors import BrokenFile, InvalidInput

OWN = "emend"
"""The name of our own form."""

_LOOKED_AT = 100
"""Records that decide which form a file has."""

_MOST_FIELDS = 8


@dataclass(frozen=True)
class Reading:
    """What was read from a file.

    Attributes:
        edits: Its edits, in the file's order.
        format: The form that was recognised, or asked for.
        source: What the file is called in messages.
        problems: What keeps records from being read: source, line, field, found, expected, remedy.
        left_out: Probes and columns that could not be read, likewise; their edits are read.
        joined: How many records repeat an earlier edit; their probes are joined to that one's.
    """

    edits: tuple[Edit, ...]
    format: Format
    source: str
    problems: Problems
    left_out: Problems
    joined: int = 0

    @property
    def is_own(self) -> bool:
        """Whether it is our own form, whose faults are the writer's to correct."""
        return self.format.name == OWN

    def check(self) -> None:
        """Refuse the file where a record of it could not be read.

        Raises:
            BrokenFile: With a line for every problem.
        """
        self.problems.check()


def read(
    path: str | os.PathLike[str], *, format: str | None = None, limit: int | None = None
) -> Reading:
    """Read edits from a file, recognising its form by what it holds.

    JSON lines, a JSON list, YAML and tables with a header are told apart by content, except that
    YAML and tables may also be known by their endings. Then the fields of the records say whose
    they are: see `formats`. A record that cannot be read is noted, and the others are read.

    Args:
        path: The file; `-` is standard input, and a pipe (/dev/stdin) is read like a file.
        format: The name of the form, where it is not to be recognised.
        limit: Read no more than this many edits. Of our own form every record is checked still.

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
    """Read edits from a file of ours or in a published form, in its order.

    The forms are those of `emend datasets`: our own, CounterFact, zsRE, KnowEdit, EasyEdit,
    MQuAKE, as JSON lines, JSON, YAML, CSV or TSV. `read` also says which was recognised, and what
    was left out.

    Args:
        path: The file; `-` is standard input.
        format: The name of the form, where it is not to be recognised.
        limit: Read no more than this many edits.
        unreadable: What to do where a record cannot be read: "refuse" the file, or "skip" it.

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


def formats() -> list[Format]:
    """Return the forms that files of edits may have, sorted by name."""
    known = _registry()
    loaded = [known.get(name) for name in known.names() if name != "lab"]  # the lab has no files
    return [one for one in loaded if isinstance(one, Format)]


def format_of(name: str) -> Format:
    """Return the form of a name.

    Raises:
        InvalidInput: It is a dataset that has no files.
        UnknownName: There is none.
    """
    found = _registry().get(name)
    if not isinstance(found, Format):
        raise InvalidInput(
            f"dataset {name} is no form of files, expected one of "
            f"{', '.join(one.name for one in formats())}"
        )
    return found


def _registry() -> Registry[Any]:
    from emend.datasets import registry  # which is made of this module

    return registry()


def _recognised(records: list[object], content: Content) -> Format:
    """The form that most of the first records have; our own where none has one."""
    fields = [cast("Mapping[str, Any]", one) for one in records if isinstance(one, Mapping)]
    known = formats()
    counts = {one.name: sum(map(one.recognises, fields)) for one in known}
    if any(counts.values()):
        # KnowEdit's records are EasyEdit's too, those with lists of questions its own.
        counts["easyedit"] -= counts["knowedit"]
        best = max(counts, key=lambda name: counts[name])
        return next(one for one in known if one.name == best)
    _refuse_unknown(fields, content, known)
    return format_of(OWN)


def _refuse_unknown(
    records: list[Mapping[str, Any]], content: Content, known: list[Format]
) -> None:
    """Refuse a file once, and not each of its records, where it holds another kind of thing."""
    names = [name for name in content.columns or (records[0] if records else ()) if name]
    if content.columns:
        found = {_table.place_of(name)[1] for name in names}
        unknown = not {"prompt", "subject", "target"} <= found
    else:
        count = sum(name in FIELDS for one in records for name in one)
        unknown = bool(records) and 2 * count < sum(map(len, records))
        unknown = unknown and not content.problems.found  # which are then all said at once
    if unknown:
        some = ", ".join(map(str, names[:_MOST_FIELDS])) + (", ..." * (len(names) > _MOST_FIELDS))
        kind = "a table with the columns" if content.columns else "objects with the fields"
        raise BrokenFile(
            f"{content.problems.source} holds {kind} {some or 'none'}, expected prompt, subject, "
            f"target, or a published form ({', '.join(one.name for one in known)}): "
            "`emend datasets` shows each"
        )


class _Reader:
    """Records of one form, taken one by one."""

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
        """All that was read.

        Raises:
            BrokenFile: That is nothing.
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
