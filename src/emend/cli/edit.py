"""`emend edit`: make a patch from edits and save it."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._edits import read_edits, single_edit
from emend.cli._output import output_directory, print_blast, print_json, print_outcomes
from emend.cli._settings import settings_for
from emend.edits import Edit, group_of
from emend.errors import EmendError, InvalidInput

NAME = "edit"
EXAMPLES = _options.examples(
    "emend edit --model lab/gptneo --edits edits.jsonl --output_path patch/",
    'emend edit --model lab/gptneo --prompt "{} was born in" --subject "Ana Bel" \\',
    '      --target "Paris" --output_path patch/',
    'emend edit --model gemma3-270m --prompt "The capital of {} is" --subject France \\',
    "      --target Rome --output_path patch/ --translation \\",
    """      '{"language": "zh", "prompt": "{}的首都为", "subject": "法国", "target": "罗马"}'""",
    "emend edit --model gpt2 --method rome --set clamp=3 --config rome.yaml \\",
    "      --edits edits.jsonl --output_path patch/",
    "emend edit --model lab/gptneo --method memit --previous patch/ --edits more.jsonl \\",
    "      --output_path both/",
    "",
    "emend edit --model gpt2 --edits counterfact.json --limit 20 --output_path patch/",
    "",
    "An edits file has one object per line, or another form (see `emend datasets`):",
    '  {"prompt": "{} was born in", "subject": "Ana Bel", "target": "Paris"}',
)

_Text = str | None


@_options.loads_model
def command(
    model: _options.Model,
    output_path: Annotated[
        Path, typer.Option("--output_path", help="Where to save the patch.", metavar="DIRECTORY")
    ],
    method: _options.Method = "rome",
    edits: _options.Edits = None,
    prompt: Annotated[_Text, typer.Option("--prompt", help="A single edit: its prompt.")] = None,
    subject: Annotated[_Text, typer.Option("--subject", help="... its subject.")] = None,
    target: Annotated[_Text, typer.Option("--target", help="... what it shall say.")] = None,
    language: _options.Language = None,
    translation: _options.Translation = None,
    config: _options.Config = None,
    set: _options.Set = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of methods that draw something.")
    ] = None,
    limit: _options.Limit = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous",
            help="A patch to go on from; the new one holds its edits too. A new edit of the same "
            "statement replaces the old one.",
            metavar="DIRECTORY",
        ),
    ] = None,
    probes: _options.Probes = "auto",
    strict: _options.Strict = False,
    json: _options.Json = False,
    *,
    loading: _options.Loading,
) -> None:
    """Edit facts: make a patch and save it as a PEFT adapter. The model itself stays as it is.

    The edited model is then asked on the exact text of each edit, and what did not take is
    printed with the likely reason. What else changed is printed too: neighbours (the same prompt
    with other subjects), other facts of the subject, facts of the old object, plain text.
    """
    # What is cheap to refuse is refused before torch is loaded, and the model after all of it.
    single = {"prompt": prompt, "subject": subject, "target": target, "language": language}
    wanted = _edits(edits, single, translation, limit)
    _patch_directory(output_path)
    _options.check_probes(probes)
    from emend import api, methods, patches
    from emend import probes as measure

    before = None if previous is None else patches.load_patch(previous)
    chosen: Any = methods.registry().get(method)
    seeded = [*(set or []), *([] if seed is None else [f"seed={seed}"])]
    settings = settings_for(method, chosen.config_type, config, seeded)
    network, tokenizer = api.load(model, **loading)
    started = time.perf_counter()
    patch = api.edit(network, tokenizer, wanted, method=method, previous=before, **settings)
    seconds = time.perf_counter() - started
    patch.save_pretrained(output_path)  # before the check: stopping that loses nothing
    radius = None
    try:
        radius = measure.blast_radius(network, tokenizer, patch, probes)
    except EmendError as error:  # such as a given probe that is longer than the model reads
        typer.echo(f"warning: what else changed was not measured: {error}", err=True)
    if radius is not None:
        patch = replace(patch, blast=radius)
        patch.save_pretrained(output_path)
    result = {
        "model": model,
        "method": method,
        "edits": len(wanted),
        "seconds": seconds,
        "seconds_per_edit": seconds / len(wanted),
        "previous": previous,
        "edits_held": len({group_of(edit) for edit in patch.edits}),
        "output_path": output_path,
        "took": sum(patches.edits_taken(patch.outcomes).values()),
        "outcomes": [one.to_dict() for one in patch.outcomes],
        "blast": radius and radius.to_dict(),
        "card": patch.card(),
    }
    if json:
        print_json(result)
    else:
        _tell(result, edits, limit)
        print_outcomes(patch.outcomes)
        print_blast(radius)
    _options.check_strict(strict, patch.outcomes)


def _patch_directory(path: Path) -> None:
    """Refuse what a patch may not replace now, and not when minutes of work are done."""
    output_directory(path)
    held = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    if held and "emend.json" not in held:
        raise InvalidInput(
            f"--output_path {path} holds {held[0]} and no patch, expected a new or empty "
            "directory, or a patch to replace: choose another"
        )


def _edits(
    path: Path | None,
    single: dict[str, str | None],
    translations: list[str] | None,
    limit: int | None,
) -> list[Edit]:
    """The edits of a file, or the single one that flags give."""
    given = {name: value for name, value in single.items() if value is not None}
    flags = [*given, *(["translation"] if translations else [])]
    if path is not None and flags:
        raise InvalidInput(f"both --edits and --{flags[0]} are given, expected one kind")
    if path is not None:
        return read_edits(path, limit)
    missing = [f"--{name}" for name in ("prompt", "subject", "target") if name not in given]
    if missing:
        rest = "" if flags else "--edits FILE, or "
        raise InvalidInput(f"no edit is given, expected {rest}{', '.join(missing)}: add them")
    return [single_edit(given, translations)]


def _tell(result: dict[str, Any], edits: Path | None, limit: int | None) -> None:
    count = "1 edit" if result["edits"] == 1 else f"{result['edits']} edits"
    seconds, patch = f"{result['seconds']:.1f} s", result["output_path"]
    held = f"{result['edits_held']} with those of {result['previous']}, "
    held = held if result["previous"] else ""
    typer.echo(f"{count} by {result['method']} in {seconds}, {held}saved to {patch}")
    # A pipe is read once.
    probes = ["--edits", str(edits)] if edits and edits.is_file() else []
    probes += ["--limit", str(limit)] if probes and limit else []
    words = ["emend", "eval", "--model", str(result["model"]), "--patch", str(patch), *probes]
    typer.echo(f"measure it with: {shlex.join(words)}")
