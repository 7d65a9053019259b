"""`emend ledger build`, `check` and `expand`: what needs the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emend._io import write_json, write_text
from emend.cli import _options
from emend.cli._given import author_name, check_strict, output_directory
from emend.cli._ledger import record_of, warn_of_similar
from emend.cli._options import flag
from emend.cli._output import print_json, print_outcomes, print_table
from emend.ledger import Ledger

if TYPE_CHECKING:
    from emend.ledger import Built, ReleaseCheck

_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add the three subcommands to `emend ledger`."""
    app.command("build", epilog=_BUILD)(build)
    app.command("check", epilog=_CHECK)(check)
    app.command("expand", epilog=_EXPAND)(expand)


_BUILD = _options.examples(
    "emend ledger build facts.db --model lab/gptneo --output_path patch/",
    "emend ledger build facts.db --model gpt2 --method rome --output_path patch/",
    "emend ledger build facts.db --model lab/qwen3 --method serac --output_path patch/",
)


def build(
    *,
    ledger: _options.LedgerFile,
    model: _options.Model,
    output_path: _options.PatchPath,
    method: _options.Method = "memit",
    strict: _options.Strict = False,
    settings: _options.Settings,
    author: _options.Author = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Build the patch of the active edits. Only what is new is solved for.

    The same active edits make the same patch, whatever was active in between. Each solution is
    saved in the ledger as it is found, so that an interrupted build goes on where it was.
    """
    output_directory(output_path)
    with Ledger.open(ledger) as book:
        from emend.ledger import building

        chosen: dict[str, Any] = {"method": method, **settings.of(method)}
        network, tokenizer = loading.load(model)
        built = building.build(
            *(book, network, tokenizer), directory=output_path, author=author_name(author), **chosen
        )
    _print_built(built, model, output_path, json)
    check_strict(strict, built.patch.outcomes)


def _print_built(built: Built, model: str, output_path: Path, json: bool) -> None:
    from emend.patches import edits_taken

    made, outcomes = built.build, built.patch.outcomes
    if json:
        result: dict[str, Any] = {
            "model": model,
            "method": made.method,
            "build": made.id,
            "patch_hash": made.patch_hash,
            "edits": len(made.edits),
            "solved": built.solved,
            "seconds": built.seconds,
            "similar": [pair._asdict() for pair in built.similar],
            "output_path": output_path,
            "took": sum(edits_taken(outcomes).values()),
            "outcomes": [one.to_dict() for one in outcomes],
        }
        print_json(result)
        return
    warn_of_similar(built.similar)
    typer.echo(
        f"{len(made.edits)} edits by {made.method}, {built.solved} of them solved for, "
        f"in {built.seconds:.1f} s: {output_path}"
    )
    typer.echo(f"build {made.id}, patch {made.patch_hash[:16]}")
    print_outcomes(outcomes)


_CHECK = _options.examples(
    "emend ledger check facts.db --model lab/qwen3 --suite suite.yaml",
    "emend ledger check facts.db --model gpt2 --suite suite.yaml --output_path results/",
)


def check(
    *,
    ledger: _options.LedgerFile,
    model: _options.Model,
    suite: Annotated[Path, flag("What has to hold: a YAML or JSON file.", metavar="FILE")],
    output_path: _options.OutputPath = None,
    method: Annotated[
        str | None, flag("Build with this method, not the suite's.", metavar="NAME")
    ] = None,
    strict: _options.Strict = False,
    settings: _options.Settings,
    batch_size: _options.BatchSize = 32,
    author: _options.Author = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Build the patch of the active edits and measure it by a suite; fail where it falls short.

    The exit status is 0 where all holds, 1 where a threshold is missed, 2 where the suite or
    another thing that was given cannot be used. What was found is noted in the ledger; with
    --output_path the patch, junit.xml, results.json and the records of the edits are written.
    """
    output_directory(output_path)
    with Ledger.open(ledger) as book:
        from emend.ledger import release_check
        from emend.ledger.suite import read_suite

        asked = read_suite(suite)
        chosen = method or asked.method or release_check.METHOD
        known = asked.settings if chosen == asked.method else {}
        given = {**known, **settings.of(chosen), "batch_size": batch_size}
        network, tokenizer = loading.load(model)
        found = release_check.check(
            *(book, network, tokenizer, asked),
            method=chosen,
            directory=output_path / "patch" if output_path else None,
            author=author_name(author),
            **given,
        )
    result = {"model": model, **found.to_dict(), "output_path": output_path}
    if output_path:
        _write(found, result, output_path)
    print_json(result) if json else _print_checks(found, model, output_path)
    if not found.passed:
        raise typer.Exit(1)
    check_strict(strict, found.built.patch.outcomes)


def _write(found: ReleaseCheck, result: dict[str, Any], directory: Path) -> None:
    from emend.ledger.junit import junit_xml

    write_text(directory / "junit.xml", junit_xml(found))
    write_json(directory / "results.json", {**result, "output_path": str(directory)})
    if found.report:
        found.report.save(directory / "edits")


def _print_checks(found: ReleaseCheck, model: str, output_path: Path | None) -> None:
    from emend.ledger.junit import in_unit

    made = found.built.build
    warn_of_similar(found.built.similar)
    rows = [
        [
            *(one.name, str(one.count)),
            *(in_unit(one.base, one.unit), in_unit(one.found, one.unit)),
            *(one.expected, "holds" if one.passed else "MISSED"),
        ]
        for one in found.checks
    ]
    title = f"{found.suite}: {len(made.edits)} edits by {made.method} on {model}"
    print_table(title, ("check", "on", "base", "patched", "expected", ""), rows)
    print_outcomes(found.built.patch.outcomes)
    missed = [one for one in found.checks if not one.passed]
    for one in missed:
        for line in one.missed[:_SHOWN]:
            typer.echo(f"{one.name}: {line}")
        if len(one.missed) > _SHOWN:
            typer.echo(f"{one.name}: ... and {len(one.missed) - _SHOWN} more in results.json")
    count = f"{len(missed)} of {len(found.checks)} checks missed" if missed else "all checks hold"
    typer.echo(f"{count}; build {made.id}, patch {made.patch_hash[:16]}")
    if output_path:
        typer.echo(f"written to {output_path}")


_EXPAND = _options.examples(
    "emend ledger expand facts.db --rules lab --model lab/gptneo",
    "emend ledger expand facts.db --rules rules.yaml --id edit-17 --accept",
)


def expand(
    *,
    ledger: _options.LedgerFile,
    rules: Annotated[str, flag("A .yaml or .json file of rules, or lab.", metavar="FILE")],
    model: Annotated[
        str | None,
        flag("Asked for what no edit states; without it no model is asked.", metavar="MODEL"),
    ] = None,
    id: Annotated[
        list[str] | None, flag("Start from this edit; by default all. May be repeated.")
    ] = None,
    depth: Annotated[int, flag("How many steps to follow.", min=1)] = 1,
    accept: Annotated[bool, flag("Make what follows active without review.")] = False,
    author: _options.Author = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Propose the edits that follow from the active ones: inverses, other names, compositions.

    Each has the edit that it follows from as its parent and is reverted with it. Proposals are
    not built before `accept`.
    """
    with Ledger.open(ledger) as book:
        from emend.ledger import expansion, lab_rules, read_rules

        known = lab_rules() if rules == "lab" else read_rules(rules)
        network, tokenizer = (None, None) if model is None else loading.load(model)
        found = expansion.expand(
            *(book, known, network, tokenizer),
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
