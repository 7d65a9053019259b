"""`emend datasets`: the datasets there are, and the forms of files that are read."""

from __future__ import annotations

import json as json_module
from collections import Counter
from typing import Annotated, Any

import typer

from emend import datasets
from emend._io import split_lines
from emend.cli import _options
from emend.cli._output import print_json, print_table
from emend.errors import InvalidInput

CHECK = "check"
EXAMPLES = _options.examples(
    "emend datasets",
    "emend datasets counterfact",
    "emend datasets zsre --json",
    "emend datasets check edits.json",
)


def command(
    name: Annotated[
        str | None, typer.Argument(help="Show this one with an example.", metavar="[NAME]")
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(help="After `check`: the file to read whole.", metavar="[check FILE]"),
    ] = None,
    json: _options.Json = False,
) -> None:
    """List the datasets and the forms of files that --edits takes, or show one with an example.

    `emend datasets check FILE` reads a file whole and lists every record and probe that cannot be
    read; its exit status is 0 only if all records can.
    """
    if name == CHECK:
        _check(file, json)
        return
    if file is not None:
        raise InvalidInput(f"found {file!r} after {name}, expected nothing: leave it out")
    if name is not None:
        _show(name, json)
        return
    found = [_about(one) for one in datasets.registry().names()]
    if json:
        print_json({"datasets": found})
        return
    columns = ("name", "title", "file", "licence", "source", "what it is")
    keys = ("name", "title", "file", "licence", "source", "about")
    print_table("Datasets", columns, [[one[key] for key in keys] for one in found])
    typer.echo(
        "file: read (a file of this form is recognised by its content, as JSON lines, JSON, YAML,\n"
        "CSV or TSV, and - is standard input), drawn (by `load`, from the package or a file), or\n"
        "compare (sentences to compare, no edits: `emend fairness --data NAME FILE`)"
    )
    typer.echo("`emend datasets NAME` shows one with an example.")


def _about(name: str) -> dict[str, Any]:
    found: Any = datasets.registry().get(name)
    if isinstance(found, (datasets.Format, datasets.ComparisonFormat)):
        kind = "read" if isinstance(found, datasets.Format) else "compare"
        return {
            **{"name": name, "title": found.title, "file": kind, "about": found.about},
            **{"licence": found.licence, "source": found.source, "counts": dict(found.counts)},
        }
    about = split_lines((found.__doc__ or "").strip())
    ships = {"name": name, "title": name, "file": "drawn", "about": about[0] if about else ""}
    return {**ships, "licence": "", "source": "", "counts": {}}


def _check(file: str | None, json: bool) -> None:
    """Read a file whole and list what cannot be read."""
    if file is None:
        raise InvalidInput("check has no file, expected its path: emend datasets check FILE")
    found = datasets.read(file)
    probes = Counter(probe.group for edit in found.edits for probe in edit.probes)
    problems = [str(one) for one in found.problems.found]
    left_out = [str(one) for one in found.left_out.found]
    if json:
        print_json(
            {
                **{"file": file, "form": found.format.name, "edits": len(found.edits)},
                **{"joined": found.joined, "probes": dict(sorted(probes.items()))},
                **{"problems": problems, "left_out": left_out},
            }
        )
    else:
        groups = ", ".join(f"{count:,} {group}" for group, count in sorted(probes.items()))
        typer.echo(f"{file}: {found.format.title}, {len(found.edits):,} edits")
        typer.echo(f"probes: {groups or 'none'}")
        if found.joined:
            typer.echo(f"{found.joined:,} records repeat an edit; their probes are added to it")
        for title, lines in (("records not read", problems), ("left out", left_out)):
            typer.echo(f"{title}: {len(lines):,}")
            for line in lines:
                typer.echo(f"  {line}")
    if problems:
        raise typer.Exit(1)


def _show(name: str, json: bool) -> None:
    found: Any = datasets.registry().get(name)
    is_format = isinstance(found, (datasets.Format, datasets.ComparisonFormat))
    example = found.example if is_format else None
    fields = dict(found.fields) if is_format else {}
    if json:
        print_json({**_about(name), "fields": fields, "example": example})
        return
    about = _about(name)
    typer.echo(f"{about['name']}: {about['title']}\n{about['about']}\n")
    if not is_format:
        typer.echo("Commands draw edits from it, by a seed and a limit.")
        return
    if found.source:
        counts = ", ".join(f"{file} {count:,}" for file, count in found.counts.items())
        typer.echo(f"licence: {found.licence}; source: {found.source}")
        typer.echo(f"records: {counts}\n")
    print_table("Fields", ("field", "what it becomes"), ([one, fields[one]] for one in fields))
    typer.echo("Example of a record:")
    typer.echo(json_module.dumps(example, ensure_ascii=False, indent=2))
