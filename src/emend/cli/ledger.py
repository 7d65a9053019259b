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
from emend.cli import _options, ledger_build, ledger_check, ledger_expand
from emend.cli._edits import read_edits, single_edit
from emend.cli._ledger import (
    Author,
    Path_,
    Reason,
    Supersede,
    author_name,
    opened,
    print_entries,
    record_of,
)
from emend.cli._output import number, print_json, print_table
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.ledger import Entry, Ledger

NAME = "ledger"

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
    ledger: Path_,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Bind it to this model: no other is built for.", metavar="MODEL"
        ),
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
    ledger: Path_,
    edits: _options.Edits = None,
    prompt: Annotated[_Text, typer.Option("--prompt", help="A single edit: its prompt.")] = None,
    subject: Annotated[_Text, typer.Option("--subject", help="... its subject.")] = None,
    target: Annotated[_Text, typer.Option("--target", help="... what shall be said.")] = None,
    relation: Annotated[_Text, typer.Option("--relation", help="... its relation.")] = None,
    id: Annotated[_Text, typer.Option("--id", help="... its id.")] = None,
    language: _options.Language = None,
    translation: _options.Translation = None,
    author: Author = None,
    reason: Reason = "",
    source: Annotated[str, typer.Option("--source", help="Where the fact comes from.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A word to find it by. May be repeated.")
    ] = None,
    proposed: Annotated[
        bool, typer.Option("--proposed", help="Wait for review (`accept`) before it is built.")
    ] = False,
    supersede: Supersede = False,
    json: _options.Json = False,
) -> None:
    """Add edits: by flags, from a file, or written in your text editor ($EDITOR)."""
    single = {"prompt": prompt, "subject": subject, "target": target}
    single |= {"relation": relation, "id": id, "language": language}
    with opened(ledger) as book:
        given = {name: text for name, text in single.items() if text is not None}
        wanted = _wanted(edits, given, translation)
        added = book.add(
            wanted,
            author=author_name(author),
            reason=reason,
            source=source,
            tags=tag or (),
            status="proposed" if proposed else "active",
            supersede=supersede,
        )
    _tell(added, "added", json)


@app.command(
    "list",
    epilog=_options.examples(
        "emend ledger list facts.db", "emend ledger list facts.db --status reverted --tag wiki"
    ),
)
def list_entries(
    ledger: Path_,
    status: Annotated[
        _Text, typer.Option("--status", help="proposed, active, superseded or reverted.")
    ] = None,
    tag: Annotated[_Text, typer.Option("--tag", help="Only those that bear it.")] = None,
    author: Annotated[_Text, typer.Option("--author", help="Only those of this author.")] = None,
    subject: Annotated[_Text, typer.Option("--subject", help="Only those about it.")] = None,
    json: _options.Json = False,
) -> None:
    """List edits, oldest first."""
    with opened(ledger) as book:
        found = book.entries(status=status, tag=tag, author=author, subject=subject)
    if json:
        print_json({"entries": [record_of(entry) for entry in found]})
    else:
        print_entries(str(ledger), found)


@app.command(epilog=_options.examples("emend ledger show facts.db edit-5f7b6783cf"))
def show(
    ledger: Path_,
    id: Annotated[str, typer.Argument(help="Id of an edit.", metavar="ID")],
    json: _options.Json = False,
) -> None:
    """Show one edit: what it asks for, what became of it, what was solved for it."""
    with opened(ledger) as book:
        entry, events, solved = book.entry(id), book.log(id), book.solved(id)
    record = record_of(entry)
    if json:
        known = [{"base": one.base, "method": one.method, **one.details} for one in solved]
        history = [{"time": one.time, "what": one.what, "author": one.author} for one in events]
        print_json({**record, "solved": known, "history": history})
        return
    rows = [[name, _word(value)] for name, value in record.items() if value not in (None, "", [])]
    print_table(id, ("field", "value"), rows)
    print_table(
        "Solved for",
        ("base", "method", "layer", "token", "time"),
        [
            [one.base, one.method, _word(one.details.get("layer")), *_token(one.details), one.time]
            for one in solved
        ],
    )
    _print_log(f"History of {id}", events)


@app.command(
    epilog=_options.examples(
        "emend ledger diff facts.db                 # the last build and what is active now",
        "emend ledger diff facts.db --old BUILD --new BUILD",
    )
)
def diff(
    ledger: Path_,
    old: Annotated[_Text, typer.Option("--old", help="Id of a build; by default the last.")] = None,
    new: Annotated[
        _Text, typer.Option("--new", help="Id of a build; by default what is active now.")
    ] = None,
    json: _options.Json = False,
) -> None:
    """Show which edits came in and which went out between two builds, or since the last."""
    with opened(ledger) as book:
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
            edit = entry.edit
            typer.echo(f"{sign} {entry.id}  {edit.text} -> {edit.target.strip()}  ({entry.status})")
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
    ledger: Path_,
    ids: _Ids,
    author: Author = None,
    reason: Reason = "",
    json: _options.Json = False,
) -> None:
    """Take out edits, any of them, and with them what was derived from them."""
    with opened(ledger) as book:
        changed = book.revert(*ids, author=author_name(author), reason=reason)
    _tell(changed, "reverted", json)


@app.command(epilog=_options.examples("emend ledger restore facts.db edit-17"))
def restore(
    ledger: Path_,
    ids: _Ids,
    author: Author = None,
    reason: Reason = "",
    supersede: Supersede = False,
    json: _options.Json = False,
) -> None:
    """Bring back edits that were reverted or superseded."""
    with opened(ledger) as book:
        changed = book.restore(*ids, author=author_name(author), reason=reason, supersede=supersede)
    _tell(changed, "restored", json)


@app.command(epilog=_options.examples("emend ledger accept facts.db edit-17/inverse"))
def accept(
    ledger: Path_,
    ids: _Ids,
    author: Author = None,
    reason: Reason = "",
    supersede: Supersede = False,
    json: _options.Json = False,
) -> None:
    """Make proposals active; `revert` rejects one."""
    with opened(ledger) as book:
        changed = book.accept(*ids, author=author_name(author), reason=reason, supersede=supersede)
    _tell(changed, "accepted", json)


@app.command(
    epilog=_options.examples("emend ledger log facts.db", "emend ledger log facts.db --id edit-17")
)
def log(
    ledger: Path_,
    id: Annotated[_Text, typer.Option("--id", help="Only what is about this edit.")] = None,
    json: _options.Json = False,
) -> None:
    """Print the history, oldest first."""
    with opened(ledger) as book:
        events = book.log(id)
    if json:
        print_json({"events": [vars(event) for event in events]})
    else:
        _print_log(str(ledger), events)


@app.command(epilog=_options.examples("emend ledger export facts.db facts.jsonl"))
def export(
    ledger: Path_,
    file: Annotated[Path, typer.Argument(help="A .jsonl file to write.", metavar="FILE")],
    json: _options.Json = False,
) -> None:
    """Write all edits and their history to a JSONL file."""
    with opened(ledger) as book:
        count = book.export(file)
    print_json({"entries": count, "file": file}) if json else typer.echo(f"{count} edits in {file}")


@app.command("import", epilog=_options.examples("emend ledger import facts.db facts.jsonl"))
def import_file(
    ledger: Path_,
    file: Annotated[Path, typer.Argument(help="What `export` wrote.", metavar="FILE")],
    author: Author = None,
    supersede: Supersede = False,
    json: _options.Json = False,
) -> None:
    """Take in a file that `export` wrote, all of it or nothing."""
    with opened(ledger) as book:
        new = book.import_file(file, author=author_name(author), supersede=supersede)
    _tell(new, "imported", json)


@app.command(epilog=_options.examples("emend ledger merge facts.db theirs.db"))
def merge(
    ledger: Path_,
    other: Annotated[Path, typer.Argument(help="Another ledger.", metavar="OTHER")],
    author: Author = None,
    supersede: Supersede = False,
    json: _options.Json = False,
) -> None:
    """Take in another ledger, all of it or nothing; it stays as it is."""
    with opened(ledger) as book, opened(other) as theirs:
        new = book.merge(theirs, author=author_name(author), supersede=supersede)
    _tell(new, "merged", json)


for _module in (ledger_build, ledger_check, ledger_expand):
    app.command(_module.NAME, epilog=_module.EXAMPLES)(_module.command)


def _wanted(
    path: Path | None, single: dict[str, str], translations: list[str] | None
) -> list[Edit]:
    """The edits of a file, the one that flags give, or those written in the editor."""
    flags = [*single, *(["translation"] if translations else [])]
    if path is not None and flags:
        raise InvalidInput(f"both --edits and --{flags[0]} are given, expected one kind")
    if path is not None:
        return read_edits(path)
    if flags:
        missing = [f"--{name}" for name in ("prompt", "subject", "target") if name not in single]
        if missing:
            raise InvalidInput(f"no {', '.join(missing)} is given, expected all of them: add them")
        return [single_edit(single, translations)]
    return _from_editor()


def _from_editor() -> list[Edit]:
    """What is written in the text editor. It stays in its file where it cannot be used."""
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


def _tell(entries: Sequence[Entry], what: str, json: bool) -> None:
    if json:
        print_json({what: [record_of(entry) for entry in entries]})
        return
    for entry in entries:
        edit = entry.edit
        typer.echo(f"{what} {entry.id}  {edit.text} -> {edit.target.strip()}  ({entry.status})")
    if not entries:
        typer.echo(f"nothing was {what}: it is all there")


def _print_log(title: str, events: Sequence[Any]) -> None:
    print_table(
        title,
        ("time", "what", "edit", "author", "reason", "details"),
        [
            [
                event.time[:19],
                event.what,
                event.edit or "",
                event.author,
                event.reason,
                ", ".join(f"{name} {_word(value)}" for name, value in event.details.items()),
            ]
            for event in events
        ],
    )


def _token(details: Any) -> list[str]:
    return [str(details.get("token", ""))]


def _word(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, tuple)):
        return f"{len(value)} items" if len(value) > 8 else ", ".join(map(str, value))
    return "" if value is None else str(value)
