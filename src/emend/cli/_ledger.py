"""What the subcommands of `emend ledger` share."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli._output import print_table
from emend.edits import edit_to_record
from emend.ledger import Entry, Ledger

Path_ = Annotated[Path, typer.Argument(help="The file of the ledger.", metavar="LEDGER")]
Author = Annotated[
    str | None, typer.Option("--author", help="Who does it; by default your user name.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who read the history.")]
Supersede = Annotated[
    bool,
    typer.Option(
        "--supersede", help="Of edits that want different things, let the newer win; else refused."
    ),
]


def opened(path: Path) -> Ledger:
    """The ledger, to be used in a ``with`` block."""
    return Ledger.open(path)


def record_of(entry: Entry) -> dict[str, Any]:
    """An entry as one flat JSON object."""
    return {
        **edit_to_record(entry.edit),
        "status": entry.status,
        "author": entry.author,
        "reason": entry.reason,
        "source": entry.source,
        "tags": list(entry.tags),
        "time": entry.time,
        "parent": entry.parent,
        "superseded_by": entry.superseded_by,
    }


def print_entries(title: str, entries: Sequence[Entry]) -> None:
    """Print a table of entries."""
    print_table(
        f"{title}: {len(entries)} edits",
        ("id", "status", "statement", "target", "author", "added"),
        [
            [
                entry.id,
                entry.status,
                entry.edit.text,
                entry.edit.target.strip(),
                entry.author,
                entry.time[:10],
            ]
            for entry in entries
        ],
    )


def author_name(given: str | None) -> str:
    """Who is at the keyboard, where nobody is named."""
    if given is not None:
        return given
    with suppress(OSError, KeyError):  # there is no such user in some containers
        return getpass.getuser()
    return ""


def warn_of_similar(pairs: Sequence[dict[str, Any]]) -> None:
    """Name edits whose keys a model can hardly tell apart, on standard error."""
    for pair in pairs:
        typer.echo(
            f"warning: {pair['left']} and {pair['right']} are about different subjects whose keys "
            f"are nearly the same (cosine {pair['cosine']:.3f}): look at both answers",
            err=True,
        )
