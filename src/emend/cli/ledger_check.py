"""`emend ledger check`: whether the patch of the active edits may go out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emend._io import write_json, write_text
from emend.cli import _options
from emend.cli._ledger import Author, Path_, author_name, opened, warn_of_similar
from emend.cli._output import output_directory, print_json, print_outcomes, print_table
from emend.cli._settings import settings_for

if TYPE_CHECKING:
    from emend.ledger.release_check import ReleaseCheck

NAME = "check"
EXAMPLES = _options.examples(
    "emend ledger check facts.db --model lab/qwen3 --suite suite.yaml",
    "emend ledger check facts.db --model gpt2 --suite suite.yaml --output_path results/",
)
_SHOWN = 5


@_options.loads_model
def command(
    ledger: Path_,
    model: _options.Model,
    suite: Annotated[
        Path,
        typer.Option("--suite", help="What has to hold: a YAML or JSON file.", metavar="FILE"),
    ],
    output_path: _options.OutputPath = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="Build with this method, not the suite's.", metavar="NAME"),
    ] = None,
    strict: _options.Strict = False,
    config: _options.Config = None,
    set: _options.Set = None,
    batch_size: _options.BatchSize = 32,
    author: Author = None,
    json: _options.Json = False,
    *,
    loading: _options.Loading,
) -> None:
    """Build the patch of the active edits and measure it by a suite; fail where it falls short.

    The exit status is 0 where all holds, 1 where a threshold is missed, 2 where the suite or
    another thing that was given cannot be used. What was found is noted in the ledger; with
    --output_path the patch, junit.xml, results.json and the records of the edits are written.
    """
    output_directory(output_path)
    with opened(ledger) as book:
        from emend import api, methods
        from emend.ledger import release_check
        from emend.ledger.suite import read_suite

        asked = read_suite(suite)
        chosen = method or asked.method or release_check.METHOD
        config_type = methods.registry().get(chosen).config_type
        known = asked.settings if chosen == asked.method else {}
        settings = {
            **known,
            **settings_for(chosen, config_type, config, set),
        }
        network, tokenizer = api.load(model, **loading)
        found = release_check.check(
            book,
            network,
            tokenizer,
            asked,
            method=chosen,
            directory=output_path / "patch" if output_path else None,
            author=author_name(author),
            batch_size=batch_size,
            **settings,
        )
    result = {"model": model, **found.to_dict(), "output_path": output_path}
    if output_path:
        _write(found, result, output_path)
    print_json(result) if json else _tell(found, model, output_path)
    if not found.passed:
        raise typer.Exit(1)
    _options.check_strict(strict, found.built.patch.outcomes)


def _write(found: ReleaseCheck, result: dict[str, Any], directory: Path) -> None:
    from emend.ledger.junit import junit_xml

    write_text(directory / "junit.xml", junit_xml(found))
    write_json(directory / "results.json", {**result, "output_path": str(directory)})
    if found.report:
        found.report.save(directory / "edits")


def _tell(found: ReleaseCheck, model: str, output_path: Path | None) -> None:
    from emend.ledger.junit import in_unit

    made = found.built.build
    warn_of_similar([pair._asdict() for pair in found.built.similar])
    print_table(
        f"{found.suite}: {len(made.edits)} edits by {made.method} on {model}",
        ("check", "on", "base", "patched", "expected", ""),
        [
            [
                one.name,
                str(one.count),
                in_unit(one.base, one.unit),
                in_unit(one.found, one.unit),
                one.expected,
                "holds" if one.passed else "MISSED",
            ]
            for one in found.checks
        ],
    )
    print_outcomes(found.built.patch.outcomes)
    for one in found.checks:
        if not one.passed:
            for line in one.missed[:_SHOWN]:
                typer.echo(f"{one.name}: {line}")
            if len(one.missed) > _SHOWN:
                typer.echo(f"{one.name}: ... and {len(one.missed) - _SHOWN} more in results.json")
    missed = sum(not one.passed for one in found.checks)
    said = f"{missed} of {len(found.checks)} checks missed" if missed else "all checks hold"
    typer.echo(f"{said}; build {made.id}, patch {made.patch_hash[:16]}")
    if output_path:
        typer.echo(f"written to {output_path}")
