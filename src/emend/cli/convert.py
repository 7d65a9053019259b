"""`emend convert`: edits from any form that is known to ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emend import datasets
from emend.cli import _options
from emend.cli._given import report_reading
from emend.cli._options import flag
from emend.cli._output import print_json
from emend.edits import conflicting

EXAMPLES = _options.examples(
    "emend convert counterfact.json edits.jsonl --limit 100",
    "emend convert facts.csv facts.yaml",
    "emend convert multi.json edits.jsonl --distinct",
    "cat facts.jsonl | emend convert - facts.csv",
)


def command(
    source: Annotated[
        Path, typer.Argument(help="A file in any form, or - (see `emend datasets`).", metavar="IN")
    ],
    target: Annotated[
        Path,
        typer.Argument(help="What to write: .jsonl, .json, .yaml, .csv or .tsv.", metavar="OUT"),
    ],
    format: Annotated[
        str | None, flag("Its form, where it is not to be recognised.", metavar="NAME")
    ] = None,
    limit: _options.Limit = None,
    distinct: Annotated[
        bool, flag("Of edits that conflict with one another keep the first alone.")
    ] = False,
    strict: Annotated[bool, flag("Write nothing where a record cannot be read.")] = False,
    json: _options.Json = False,
) -> None:
    """Write the edits of a file in our own form; every record that cannot be read is listed."""
    found = datasets.read(source, format=format, limit=limit)
    if strict or found.is_own:
        found.check()
    out = {newer.id for _, newer in conflicting(found.edits)} if distinct else set[str]()
    edits = [edit for edit in found.edits if edit.id not in out]
    datasets.write_edits(target, edits)
    result = {
        "edits": len(edits),
        "format": found.format.name,
        "conflicting": sorted(out),
        "joined": found.joined,
        "unreadable": [str(one) for one in found.problems.found],
        "left_out": [str(one) for one in found.left_out.found],
        "file": target,
    }
    if json:
        print_json(result)
        return
    report_reading(found, most=None)
    dropped = f", {len(out)} that conflict with earlier ones left out" if distinct else ""
    typer.echo(f"{len(edits)} edits written to {target}{dropped}")
