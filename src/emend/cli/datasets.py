"""`emend datasets`: the datasets there are, and the forms of files that are read."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from emend import datasets
from emend._io import split_lines
from emend.cli import _options
from emend.cli._output import print_json, print_table

NAME = "datasets"
EXAMPLES = _options.examples(
    "emend datasets", "emend datasets counterfact", "emend datasets zsre --json"
)


def command(
    name: Annotated[
        str | None, typer.Argument(help="Show this one with an example.", metavar="[NAME]")
    ] = None,
    json: _options.Json = False,
) -> None:
    """List the datasets and the forms of files that --edits takes, or show one with an example."""
    if name is not None:
        _show(name, json)
        return
    found = [_about(one) for one in datasets.registry().names()]
    if json:
        print_json({"datasets": found})
        return
    rows = [[one["name"], one["title"], one["file"], one["about"]] for one in found]
    print_table("Datasets", ("name", "title", "file", "what it is"), rows)
    typer.echo(
        "file: read (a file of this form is recognised by its content, as JSON lines, JSON, YAML,\n"
        "CSV or TSV, and - is standard input), or ships (drawn from the package, no file)"
    )
    typer.echo("`emend datasets NAME` shows one with an example.")


def _about(name: str) -> dict[str, Any]:
    found: Any = datasets.registry().get(name)
    if isinstance(found, datasets.Format):
        return {"name": name, "title": found.title, "file": "read", "about": found.about}
    about = split_lines((found.__doc__ or "").strip())
    ships = {"name": name, "title": name, "file": "ships"}
    return {**ships, "about": about[0] if about else ""}


def _show(name: str, json: bool) -> None:
    found: Any = datasets.registry().get(name)
    is_format = isinstance(found, datasets.Format)
    example = found.example if is_format else None
    fields = dict(found.fields) if is_format else {}
    if json:
        print_json({**_about(name), "fields": fields, "example": example})
        return
    about = _about(name)
    typer.echo(f"{about['name']}: {about['title']}\n{about['about']}\n")
    if not is_format:
        typer.echo("It has no files: commands draw edits from it, by a seed and a limit.")
        return
    print_table("Fields", ("field", "what it becomes"), ([one, fields[one]] for one in fields))
    typer.echo("Example of a record:")
    typer.echo(json_module.dumps(example, ensure_ascii=False, indent=2))
