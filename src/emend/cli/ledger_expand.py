"""`emend ledger expand`: propose what edits entail."""

from __future__ import annotations

from typing import Annotated

import typer

from emend.cli import _options
from emend.cli._ledger import Author, Path_, author_name, opened, record_of
from emend.cli._output import print_json

NAME = "expand"
EXAMPLES = _options.examples(
    "emend ledger expand facts.db --rules lab --model lab/gptneo",
    "emend ledger expand facts.db --rules rules.yaml --id edit-17 --accept",
)


@_options.loads_model
def command(
    ledger: Path_,
    rules: Annotated[
        str,
        typer.Option("--rules", help="A .yaml or .json file of rules, or lab.", metavar="FILE"),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Asked for what no edit says; without it nobody is.", metavar="MODEL"
        ),
    ] = None,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", help="Start from this edit; by default all. May be repeated."),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", help="How many steps to follow.", min=1)] = 1,
    accept: Annotated[
        bool, typer.Option("--accept", help="Make what follows active without review.")
    ] = False,
    author: Author = None,
    json: _options.Json = False,
    *,
    loading: _options.Loading,
) -> None:
    """Propose the edits that follow from the active ones: inverses, other names, compositions.

    Each has the edit that it follows from as its parent and is reverted with it. Proposals are
    not built before `accept`.
    """
    with opened(ledger) as book:
        from emend import api
        from emend.ledger import expand, lab_rules, read_rules

        known = lab_rules() if rules == "lab" else read_rules(rules)
        network, tokenizer = (None, None) if model is None else api.load(model, **loading)
        found = expand(
            book,
            known,
            network,
            tokenizer,
            ids=id,
            accept=accept,
            depth=depth,
            author=author_name(author),
        )
    if json:
        skipped = [vars(one) for one in found.skipped]
        print_json({"proposed": [record_of(one) for one in found.proposed], "skipped": skipped})
        return
    for entry, derived in zip(found.proposed, found.derived, strict=True):
        target = entry.edit.target.strip()
        typer.echo(f"{entry.status} {entry.id}  {entry.edit.text} -> {target}  ({derived.because})")
    for one in found.skipped:
        typer.echo(f"left out: {one.text} -> {one.target or '?'}: {one.reason}", err=True)
    if not found.proposed:
        typer.echo("nothing new follows")
