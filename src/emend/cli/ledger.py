"""`emend ledger`: facts under version control."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer

from emend._io import split_lines, write_text
from emend.cli import _options, ledger_build
from emend.cli._given import author_name, read_edits
from emend.cli._ledger import line_of, print_changed, print_entries, print_log, record_of, word
from emend.cli._options import flag
from emend.cli._output import print_json, print_table
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.ledger import Ledger

app = typer.Typer(
    help="Facts under version control: edits with who asked for them and why; patches built "
    "from those that are active; any of them taken out again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Ids = Annotated[list[str], typer.Argument(help="Ids of edits.", metavar="ID...")]
_Text = str | None

TEMPLATE = """\
# One edit a line. Lines that begin with # are left out; an empty file adds nothing.
# {"prompt": "{} was born in", "subject": "Ana Bel", "target": "Paris", "relation": "birthplace"}
"""


@app.command(
    epilog=_options.examples(
        "emend ledger init facts.db", "emend ledger init facts.db --model lab/gptneo"
    )
)
def init(
    ledger: _options.LedgerFile,
    model: Annotated[
        str | None, flag("Bind it to this model: no other is built for.", metavar="MODEL")
    ] = None,
    json: _options.Json = False,
) -> None:
    """Make an empty ledger."""
    base: dict[str, Any] | None = None
    if model is not None:
        from emend import api
        from emend.patches import describe_base

        base = {**describe_base(api.load(model)[0]), "name": model}
    with Ledger.create(ledger, base) as made:
        found = {"ledger": made.path, "base": made.base}
    said = f"made {ledger}; add edits: emend ledger add {shlex.quote(str(ledger))}"
    print_json(found) if json else typer.echo(said)


@app.command(
    epilog=_options.examples(
        'emend ledger add facts.db --prompt "{} was born in" --subject "Ana Bel" \\',
        '      --target "Paris" --relation birthplace --reason "ticket 17"',
        "emend ledger add facts.db --edits edits.jsonl --tag import --source wiki",
        "emend ledger add facts.db          # opens your text editor",
    )
)
def add(
    *,
    ledger: _options.LedgerFile,
    edits: _options.Edits = None,
    one: _options.OneEdit,
    relation: Annotated[_Text, flag("... its relation.")] = None,
    id: Annotated[_Text, flag("... its id.")] = None,
    author: _options.Author = None,
    reason: _options.Reason = "",
    source: Annotated[str, flag("Where the fact comes from.")] = "",
    tag: Annotated[list[str] | None, flag("A word to find it by. May be repeated.")] = None,
    proposed: Annotated[bool, flag("Wait for review (`accept`) before it is built.")] = False,
    supersede: _options.Supersede = False,
    json: _options.Json = False,
) -> None:
    """Add edits: by flags, from a file, or written in your text editor ($EDITOR)."""
    with Ledger.open(ledger) as book:
        single = one.edit(edits, "", relation=relation, id=id)
        added = book.add(
            single or (read_edits(edits) if edits else _from_editor()),
            author=author_name(author),
            reason=reason,
            source=source,
            tags=tag or (),
            status="proposed" if proposed else "active",
            supersede=supersede,
        )
    print_changed(added, "added", json)


@app.command(
    "list",
    epilog=_options.examples(
        "emend ledger list facts.db", "emend ledger list facts.db --status reverted --tag wiki"
    ),
)
def list_entries(
    ledger: _options.LedgerFile,
    status: Annotated[_Text, flag("proposed, active, superseded or reverted.")] = None,
    tag: Annotated[_Text, flag("Only those that bear it.")] = None,
    author: Annotated[_Text, flag("Only those of this author.")] = None,
    subject: Annotated[_Text, flag("Only those about it.")] = None,
    json: _options.Json = False,
) -> None:
    """List edits, oldest first."""
    with Ledger.open(ledger) as book:
        found = book.entries(status=status, tag=tag, author=author, subject=subject)
    if json:
        print_json({"entries": [record_of(entry) for entry in found]})
    else:
        print_entries(str(ledger), found)


@app.command(epilog=_options.examples("emend ledger show facts.db edit-5f7b6783cf"))
def show(
    ledger: _options.LedgerFile,
    id: Annotated[str, typer.Argument(help="Id of an edit.", metavar="ID")],
    json: _options.Json = False,
) -> None:
    """Show one edit: what it asks for, what became of it, what was solved for it."""
    with Ledger.open(ledger) as book:
        entry, events, solved = book.entry(id), book.log(id), book.solved(id)
    record = record_of(entry)
    if json:
        known = [{"base": one.base, "method": one.method, **one.details} for one in solved]
        history = [{"time": one.time, "what": one.what, "author": one.author} for one in events]
        print_json({**record, "solved": known, "history": history})
        return
    rows = [[name, word(value)] for name, value in record.items() if value not in (None, "", [])]
    print_table(id, ("field", "value"), rows)
    details = [[word(one.details.get(name)) for name in ("layer", "token")] for one in solved]
    rows = [
        [one.base, one.method, *more, one.time] for one, more in zip(solved, details, strict=True)
    ]
    print_table("Solved for", ("base", "method", "layer", "token", "time"), rows)
    print_log(f"History of {id}", events)


@app.command(
    epilog=_options.examples(
        "emend ledger diff facts.db                 # the last build and what is active now",
        "emend ledger diff facts.db --old BUILD --new BUILD",
    )
)
def diff(
    ledger: _options.LedgerFile,
    old: Annotated[_Text, flag("Id of a build; by default the last.")] = None,
    new: Annotated[_Text, flag("Id of a build; by default what is active now.")] = None,
    json: _options.Json = False,
) -> None:
    """Show which edits came in and which went out between two builds, or since the last."""
    with Ledger.open(ledger) as book:
        builds = {build.id: build for build in book.builds()}
        before = _build_edits(builds, old, list(builds.values())[-1].edits if builds else ())
        after = _build_edits(builds, new, [edit.id for edit in book.active()])
        gone = [book.entry(id) for id in sorted(set(before) - set(after))]
        come = [book.entry(id) for id in sorted(set(after) - set(before))]
    if json:
        print_json({"in": [one.id for one in come], "out": [one.id for one in gone]})
        return
    for sign, entries in (("+", come), ("-", gone)):
        for entry in entries:
            typer.echo(line_of(sign, entry))
    if not come and not gone:
        typer.echo("nothing came in and nothing went out")


def _build_edits(builds: dict[str, Any], id: str | None, default: Sequence[str]) -> Sequence[str]:
    if id is None:
        return default
    found = [build for key, build in builds.items() if key.startswith(id)]
    if len(found) != 1:
        raise InvalidInput(
            f"{len(found)} builds have an id that begins with {id!r}, expected one: "
            "`emend ledger log` shows them"
        )
    return found[0].edits


@app.command(epilog=_options.examples('emend ledger revert facts.db edit-17 --reason "was wrong"'))
def revert(
    ledger: _options.LedgerFile,
    ids: _Ids,
    author: _options.Author = None,
    reason: _options.Reason = "",
    json: _options.Json = False,
) -> None:
    """Take out edits, any of them, and with them what was derived from them."""
    with Ledger.open(ledger) as book:
        changed = book.revert(*ids, author=author_name(author), reason=reason)
    print_changed(changed, "reverted", json)


@app.command(epilog=_options.examples("emend ledger restore facts.db edit-17"))
def restore(
    ledger: _options.LedgerFile,
    ids: _Ids,
    author: _options.Author = None,
    reason: _options.Reason = "",
    supersede: _options.Supersede = False,
    json: _options.Json = False,
) -> None:
    """Bring back edits that were reverted or superseded."""
    with Ledger.open(ledger) as book:
        changed = book.restore(*ids, author=author_name(author), reason=reason, supersede=supersede)
    print_changed(changed, "restored", json)


@app.command(epilog=_options.examples("emend ledger accept facts.db edit-17/inverse"))
def accept(
    ledger: _options.LedgerFile,
    ids: _Ids,
    author: _options.Author = None,
    reason: _options.Reason = "",
    supersede: _options.Supersede = False,
    json: _options.Json = False,
) -> None:
    """Make proposals active; `revert` rejects one."""
    with Ledger.open(ledger) as book:
        changed = book.accept(*ids, author=author_name(author), reason=reason, supersede=supersede)
    print_changed(changed, "accepted", json)


@app.command(
    epilog=_options.examples("emend ledger log facts.db", "emend ledger log facts.db --id edit-17")
)
def log(
    ledger: _options.LedgerFile,
    id: Annotated[_Text, flag("Only what is about this edit.")] = None,
    json: _options.Json = False,
) -> None:
    """Print the history, oldest first."""
    with Ledger.open(ledger) as book:
        events = book.log(id)
    if json:
        print_json({"events": [vars(event) for event in events]})
    else:
        print_log(str(ledger), events)


@app.command(epilog=_options.examples("emend ledger export facts.db facts.jsonl"))
def export(
    ledger: _options.LedgerFile,
    file: Annotated[Path, typer.Argument(help="A .jsonl file to write.", metavar="FILE")],
    json: _options.Json = False,
) -> None:
    """Write all edits and their history to a JSONL file."""
    with Ledger.open(ledger) as book:
        count = book.export(file)
    print_json({"entries": count, "file": file}) if json else typer.echo(f"{count} edits in {file}")


@app.command("import", epilog=_options.examples("emend ledger import facts.db facts.jsonl"))
def import_file(
    ledger: _options.LedgerFile,
    file: Annotated[Path, typer.Argument(help="What `export` wrote.", metavar="FILE")],
    author: _options.Author = None,
    supersede: _options.Supersede = False,
    json: _options.Json = False,
) -> None:
    """Take in a file that `export` wrote, all of it or nothing."""
    with Ledger.open(ledger) as book:
        new = book.import_file(file, author=author_name(author), supersede=supersede)
    print_changed(new, "imported", json)


@app.command(epilog=_options.examples("emend ledger merge facts.db theirs.db"))
def merge(
    ledger: _options.LedgerFile,
    other: Annotated[Path, typer.Argument(help="Another ledger.", metavar="OTHER")],
    author: _options.Author = None,
    supersede: _options.Supersede = False,
    json: _options.Json = False,
) -> None:
    """Take in another ledger, all of it or nothing; it stays as it is."""
    with Ledger.open(ledger) as book, Ledger.open(other) as theirs:
        new = book.merge(theirs, author=author_name(author), supersede=supersede)
    print_changed(new, "merged", json)


ledger_build.add_to(app)


def _from_editor() -> list[Edit]:
    """Read what is written in the text editor; its file remains if it cannot be used."""
    if not sys.stdin.isatty():
        raise InvalidInput(
            "no edit is given, expected --edits FILE, or --prompt, --subject and --target: "
            "without them an editor opens, on a terminal"
        )
    with NamedTemporaryFile("w", suffix=".jsonl", delete=False, encoding="utf-8") as file:
        file.write(TEMPLATE)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    path = Path(file.name)
    try:
        subprocess.run([*shlex.split(editor), file.name], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InvalidInput(
            f"the editor {editor!r} failed ({error}): name one in EDITOR, or give --edits FILE"
        ) from error
    lines = split_lines(path.read_bytes().decode())
    write_text(path, "".join(line + "\n" for line in lines if not line.startswith("#")))
    found = read_edits(path)  # which names the file, where it cannot be read
    path.unlink()
    return found
