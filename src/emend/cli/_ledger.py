"""How the subcommands of `emend ledger` print entries and history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from emend.cli._output import number, print_json, print_table
from emend.edits import edit_to_record
from emend.ledger import Entry

_FIELDS = ("status", "author", "reason", "source", "tags", "time", "parent", "superseded_by")


def record_of(entry: Entry) -> dict[str, Any]:
    """Return an entry as one flat JSON object."""
    return {**edit_to_record(entry.edit), **{name: getattr(entry, name) for name in _FIELDS}}


def print_entries(title: str, entries: Sequence[Entry]) -> None:
    """Print a table of entries."""
    rows = [
        [one.id, one.status, one.edit.text, one.edit.target.strip(), one.author, one.time[:10]]
        for one in entries
    ]
    columns = ("id", "status", "statement", "target", "author", "added")
    print_table(f"{title}: {len(entries)} edits", columns, rows)


def line_of(sign: str, entry: Entry) -> str:
    """Write an entry as one line, after a word on what happened to it."""
    edit = entry.edit
    return f"{sign} {entry.id}  {edit.text} -> {edit.target.strip()}  ({entry.status})"


def print_changed(entries: Sequence[Entry], what: str, json: bool) -> None:
    """Print the entries that a subcommand changed.

    Args:
        entries: The entries.
        what: What was done: "added", "reverted"; the name of the field in JSON.
        json: Print one JSON object.
    """
    if json:
        print_json({what: [record_of(entry) for entry in entries]})
        return
    for entry in entries:
        typer.echo(line_of(what, entry))
    if not entries:
        typer.echo(f"nothing was {what}: it is all there")


def print_log(title: str, events: Sequence[Any]) -> None:
    """Print a history."""
    rows = [
        [
            *(event.time[:19], event.what, event.edit or "", event.author, event.reason),
            ", ".join(f"{name} {word(value)}" for name, value in event.details.items()),
        ]
        for event in events
    ]
    print_table(title, ("time", "what", "edit", "author", "reason", "details"), rows)


def word(value: object) -> str:
    """Write a value of a record for people."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return f"{len(value)} items" if len(value) > 8 else ", ".join(map(str, value))
    return "" if value is None else str(value)


def warn_of_similar(pairs: Sequence[Any]) -> None:
    """Name edits whose keys a model can hardly distinguish, on standard error."""
    for pair in pairs:
        typer.echo(
            f"warning: {pair.left} and {pair.right} are about different subjects whose keys "
            f"are nearly the same (cosine {pair.cosine:.3f}): look at both answers",
            err=True,
        )
