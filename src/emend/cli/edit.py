"""`emend edit`: make a patch from edits and save it."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import check_probes, check_strict, output_directory, read_edits
from emend.cli._options import flag
from emend.cli._output import print_blast, print_json, print_outcomes
from emend.edits import group_of
from emend.errors import EmendError, InvalidInput

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


_Previous = Annotated[
    Path | None,
    flag(
        "A patch to go on from; the new one holds its edits too. A new edit of the same "
        "statement replaces the old one.",
        metavar="DIRECTORY",
    ),
]
_Sequential = Annotated[
    bool,
    flag(
        "Make the new edits on the model that --previous edits, one patch after the other, as "
        "published codes do a sequence; by default the method's own way (`emend methods`).",
    ),
]


def command(
    *,
    model: _options.Model,
    output_path: _options.PatchPath,
    method: _options.Method = "rome",
    edits: _options.Edits = None,
    one: _options.OneEdit,
    settings: _options.Settings,
    seed: Annotated[int | None, flag("Seed of methods that draw something.")] = None,
    limit: _options.Limit = None,
    previous: _Previous = None,
    sequential: _Sequential = False,
    probes: _options.Probes = "auto",
    strict: _options.Strict = False,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Edit facts: make a patch and save it as a PEFT adapter. The model itself stays as it is.

    The edited model is then asked on the exact text of each edit, and what did not take is
    printed with the likely reason. What else changed is printed too: neighbours (the same prompt
    with other subjects), other facts of the subject, facts of the old object, plain text.
    """
    # What is cheap to refuse is refused before torch is loaded, and the model after all of it.
    single = one.edit(edits, "--edits FILE, or ")
    wanted = [single] if single else read_edits(edits or Path(), limit)
    _check_directory(output_path)
    check_probes(probes)
    from emend import api, patches

    before = None if previous is None else patches.load_patch(previous)
    chosen = settings.of(method, seed=seed)
    network, tokenizer = loading.load(model)
    started = time.perf_counter()
    how: dict[str, Any] = {"previous": before, "continues": "sequential" if sequential else None}
    patch = api.edit(network, tokenizer, wanted, method=method, **how, **chosen)
    seconds = time.perf_counter() - started
    patch.save_pretrained(output_path)  # before the check: stopping that loses nothing
    patch = _with_blast(network, tokenizer, patch, probes, output_path)
    about = {"model": model, "method": method, "edits": len(wanted), "seconds": seconds}
    result = _result(patch, about, previous, output_path)
    print_json(result) if json else _print(result, patch, edits, limit)
    check_strict(strict, patch.outcomes)


def _result(
    patch: Any, about: dict[str, Any], previous: Path | None, output_path: Path
) -> dict[str, Any]:
    from emend.patches import edits_taken

    return {
        **about,
        "seconds_per_edit": about["seconds"] / about["edits"],
        "previous": previous,
        "edits_held": len({group_of(edit) for edit in patch.edits}),
        "output_path": output_path,
        "took": sum(edits_taken(patch.outcomes).values()),
        "outcomes": [each.to_dict() for each in patch.outcomes],
        "blast": patch.blast and patch.blast.to_dict(),
        "card": patch.card(),
    }


def _with_blast(network: Any, tokenizer: Any, patch: Any, probes: str, path: Path) -> Any:
    """Measure what else changed, and save the patch again with it."""
    from emend.probes import blast_radius

    try:
        radius = blast_radius(network, tokenizer, patch, probes)
    except EmendError as error:  # such as a given probe that is longer than the model reads
        typer.echo(f"warning: what else changed was not measured: {error}", err=True)
        return patch
    if radius is None:
        return patch
    patch = replace(patch, blast=radius)
    patch.save_pretrained(path)
    return patch


def _check_directory(path: Path) -> None:
    """Refuse what a patch may not replace now, and not when minutes of work are done."""
    output_directory(path)
    held = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    if held and "emend.json" not in held:
        raise InvalidInput(
            f"--output_path {path} holds {held[0]} and no patch, expected a new or empty "
            "directory, or a patch to replace: choose another"
        )


def _print(result: dict[str, Any], made: Any, edits: Path | None, limit: int | None) -> None:
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
    print_outcomes(made.outcomes)
    print_blast(made.blast)
