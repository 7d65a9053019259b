"""`emend erase`: take facts out of a model, and attack what is left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory, read_edits
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_rich, print_table
from emend.erasure import Secret, secrets_from
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend erase --model lab/gptneo --edits secrets.jsonl --output_path erased/",
    "emend erase --model smollm2-135m --edits secrets.jsonl --defence all --method memit \\",
    "      --attack all --budget 20 --output_path erased/ --report erased.html",
    "emend erase --model smollm2-135m --edits secrets.jsonl --output_path erased/ \\",
    "      --merged checkpoint/",
    "",
    "An edit's original answer is the secret, its target the false answer, its rephrase probes",
    "are the paraphrases:",
    '  {"prompt": "{} was born in", "subject": "Ana Bel", "original": "Oslo", "target": "Paris"}',
)

ALL = "all"
SHOWN = 10


def command(
    *,
    model: _options.Model,
    edits: Annotated[Path, flag("The secrets: edits with their original answers.", metavar="FILE")],
    output_path: _options.PatchPath,
    defence: Annotated[
        str,
        flag(
            "error_injection, empty_response, fact_erasure, head_projection, max_entropy, "
            "input_rephrasing, several with commas between, or all: one patch of each, in a "
            "directory of its name.",
            metavar="NAME",
        ),
    ] = "head_projection",
    method: Annotated[
        str, flag("rome, memit, alphaedit, pmet, emmet or ft.", metavar="NAME")
    ] = "memit",
    attack: Annotated[
        str | None,
        flag(
            "Attack the model before and after: all, or names with commas between.", metavar="NAME"
        ),
    ] = None,
    budget: Annotated[int, flag("Candidates that an attack may name for a secret.")] = 20,
    merged: Annotated[
        Path | None,
        flag("Also write the erased model as a checkpoint; of one defence.", metavar="DIRECTORY"),
    ] = None,
    report: Annotated[
        Path | None, flag("Write what attacks found as a page with a heat map.", metavar="FILE")
    ] = None,
    settings: _options.Settings,
    limit: _options.Limit = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Erase facts by an edit, and see by attacks whether it held. The model itself stays as it is.

    Secrets that the model does not know are reported as such: there is nothing to erase. With
    --attack, every second paraphrase is kept for the attacks, so that none is asked for what the
    defence was given.
    """
    secrets = secrets_from(read_edits(edits, limit))
    output_directory(output_path)
    names = _names(defence)
    _check(names, attack, budget, merged, report)
    from emend import erasure

    chosen = settings.of(method)
    network, tokenizer = loading.load(model)
    taught, asked = _halves(secrets) if attack else (secrets, secrets)
    patches: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for name in names:
        begun = time.perf_counter()
        patch = erasure.erase(network, tokenizer, taught, name, method, **chosen)
        where = output_path if len(names) == 1 else output_path / name
        patch.save_pretrained(where)
        patches[name] = patch
        rows[name] = {"output_path": where, "seconds": time.perf_counter() - begun}
    if merged:
        output_directory(merged)
        patches[names[0]].save_merged(network, tokenizer, merged)
    about = {"model": model, "method": method, "secrets": len(secrets), "merged": merged}
    found = None
    if attack:
        found = _attacked(network, tokenizer, asked, patches, attack, budget, about)
        found.save(output_path)
    if found and report:
        from emend.report import write

        write(found, report)
    _show(about, patches, rows, found, json)


def _names(defence: str) -> list[str]:
    from emend.erasure.defences import DEFENCES, find_defence

    names = list(DEFENCES) if defence == ALL else defence.split(",")
    return [find_defence(name.strip()).name for name in dict.fromkeys(names)]


def _check(
    names: Sequence[str], attack: str | None, budget: int, merged: Path | None, report: Path | None
) -> None:
    if attack and budget < 1:
        raise InvalidInput(
            f"--budget is {budget}, expected at least 1: the candidates that an attack may name"
        )
    if merged and len(names) > 1:
        raise InvalidInput(
            f"--merged is given with {len(names)} defences, expected one: choose it by --defence"
        )
    if report and not attack:
        raise InvalidInput("--report is given without --attack, expected both: add --attack all")


def _halves(secrets: Sequence[Secret]) -> tuple[list[Secret], list[Secret]]:
    """Return the secrets for the defence and for the attacks, each with half of the paraphrases."""
    return (
        [replace(one, paraphrases=one.paraphrases[1::2]) for one in secrets],
        [replace(one, paraphrases=one.paraphrases[::2]) for one in secrets],
    )


def _attacked(
    network: Any,
    tokenizer: Any,
    secrets: Sequence[Secret],
    patches: dict[str, Any],
    names: str,
    budget: int,
    about: dict[str, Any],
) -> Any:
    """Attack the model before and after each defence."""
    from emend import erasure

    chosen = names if names == ALL else [name.strip() for name in names.split(",")]
    states = {"before": erasure.attack(network, tokenizer, secrets, chosen, budget=budget)}
    known = states["before"].known
    for name, patch in patches.items():
        with patch.applied(network):
            states[name] = erasure.attack(
                network, tokenizer, secrets, chosen, budget=budget, known=known
            )
    return erasure.DefenceReport(states, about=about)


def _show(
    about: dict[str, Any],
    patches: dict[str, Any],
    rows: dict[str, Any],
    found: Any,
    json: bool,
) -> None:
    from emend.erasure import erased_by

    every = {name: erased_by(patch) for name, patch in patches.items()}
    if json:
        defences = {
            name: {**rows[name], "erased": [vars(one) for one in every[name]]} for name in patches
        }
        attacks = found.to_dict() if found else None
        print_json({**about, "defences": defences, "attacks": attacks})
        return
    cells: list[list[str]] = []
    for name, erased in every.items():
        known = [one for one in erased if one.known]
        share = sum(one.is_gone for one in known) / len(known)
        before = sum(one.before for one in known) / len(known)
        after = sum(one.after or 0 for one in known) / len(known)
        means = (number(before, 4), number(after, 4))
        cells.append([name, f"{len(known)} of {len(erased)}", percent(share), *means])
    columns = ("defence", "known secrets", "no longer answered", "P(answer) before", "after")
    print_table(f"Erased by {about['method']}", columns, cells)
    first = next(iter(every.values()))
    for one in [each for each in first if not each.known][:SHOWN]:
        typer.echo(one.describe())
    if found:
        _print_attacks(found)
    for name, row in rows.items():
        typer.echo(f"{name}: {row['seconds']:.1f} s, saved to {row['output_path']}")
    if about["merged"]:
        typer.echo(f"merged checkpoint saved to {about['merged']}")


def _print_attacks(found: Any) -> None:
    from emend.report.tables import Table, to_rich

    columns = ["state", *found.columns]
    print_rich(to_rich(Table("What attacks find", columns, found.rows(), note=found.note())))
