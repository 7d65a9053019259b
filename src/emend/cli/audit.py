"""`emend audit`: what was changed in a model."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import read_patch_early
from emend.cli._options import flag
from emend.cli._output import number, print_json, print_table
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend audit --base lab/gptneo --model checkpoint/",
    "emend audit --base lab/gptneo --patch patch/ --json",
)

_SHOWN = 20


def command(
    *,
    base: Annotated[str, flag("The model as it was: as --model.", metavar="MODEL")],
    model: Annotated[
        str | None, flag("The model that may have been changed.", metavar="MODEL")
    ] = None,
    patch: Annotated[
        Path | None, flag("Or a patch or LoRA adapter for the base.", metavar="DIRECTORY")
    ] = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Say which matrices of a model differ from its base, by what rank and norm, and read them.

    For changes of low rank the last column guesses what they were made to say, best first. Guesses
    are made of any such change, edit or not.
    """
    if (model is None) == (patch is None):
        raise InvalidInput("expected one of --model and --patch: what to compare with --base")
    from emend import api
    from emend.patches import WeightPatch, load_patch

    early = None if patch is None else read_patch_early(patch)
    if early is not None and not isinstance(early, WeightPatch):
        raise InvalidInput(f"{patch} changes no weights, expected a weight patch: give another")
    network, tokenizer = loading.load(base)
    other: Any = early
    if model is not None:
        other, _ = loading.load(model)
    elif patch is not None and early is None:
        other = load_patch(patch, network)
    found = api.audit(network, other, tokenizer)
    said = {"base": base, "model": model, "patch": patch, **found.to_dict()}
    merged = _merged(model)
    if json:
        print_json({**said, "merged": merged})
        return
    count = f"{len(found.changes)} of {found.matrices} matrices and {len(found.others)} others"
    typer.echo(f"{model or patch} and {base}: {found.verdict}; {count} differ")
    if merged:
        edits = ", ".join(map(str, merged.get("edits") or ()))
        typer.echo(f"its card says: by {merged.get('method')}, edits {edits[:200]}")
    if found.changes:
        columns = ("matrix", "rank", "norm by W's", "edits", "through the head", "candidates")
        print_table("Largest changes first", columns, map(_row, found.changes[:_SHOWN]))


def _row(change: Any) -> list[str]:
    candidates = (f"{one.token} ({one.score:.1f})" for one in change.candidates)
    return [
        change.name,
        str(change.rank),
        number(change.relative_norm, 4),
        " ".join(change.edits[:5]) + (" ..." if len(change.edits) > 5 else ""),
        " ".join(change.lens),
        " ".join(candidates),
    ]


def _merged(model: str | None) -> dict[str, Any] | None:
    """Read the card of a checkpoint of ours: what was written, which proves nothing."""
    from emend.patches import MERGE_CARD

    path = Path(model or "", MERGE_CARD)
    if model is None or not path.is_file():
        return None
    try:
        card = jsonlib.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return card if isinstance(card, dict) else None
