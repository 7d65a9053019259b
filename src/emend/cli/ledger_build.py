"""`emend ledger build`: the patch of the active edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._ledger import Author, Path_, author_name, opened, warn_of_similar
from emend.cli._output import output_directory, print_json, print_outcomes
from emend.cli._settings import settings_for

NAME = "build"
EXAMPLES = _options.examples(
    "emend ledger build facts.db --model lab/gptneo --output_path patch/",
    "emend ledger build facts.db --model gpt2 --method rome --output_path patch/",
    "emend ledger build facts.db --model lab/qwen3 --method serac --output_path patch/",
)


@_options.loads_model
def command(
    ledger: Path_,
    model: _options.Model,
    output_path: Annotated[
        Path, typer.Option("--output_path", help="Where to save the patch.", metavar="DIRECTORY")
    ],
    method: _options.Method = "memit",
    strict: _options.Strict = False,
    config: _options.Config = None,
    set: _options.Set = None,
    author: Author = None,
    json: _options.Json = False,
    *,
    loading: _options.Loading,
) -> None:
    """Build the patch of the active edits. Only what is new is solved for.

    The same active edits make the same patch, whatever was there between. What was solved for is
    kept in the ledger as it is found, so that an interrupted build goes on where it was.
    """
    output_directory(output_path)
    with opened(ledger) as book:
        from emend import api, methods
        from emend.ledger import build
        from emend.patches import edits_taken

        config_type = methods.registry().get(method).config_type
        settings = settings_for(method, config_type, config, set)
        network, tokenizer = api.load(model, **loading)
        built = build(
            book,
            network,
            tokenizer,
            method=method,
            directory=output_path,
            author=author_name(author),
            **settings,
        )
    result: dict[str, Any] = {
        "model": model,
        "method": method,
        "build": built.build.id,
        "patch_hash": built.build.patch_hash,
        "edits": len(built.build.edits),
        "solved": built.solved,
        "seconds": built.seconds,
        "similar": [pair._asdict() for pair in built.similar],
        "output_path": output_path,
        "took": sum(edits_taken(built.patch.outcomes).values()),
        "outcomes": [one.to_dict() for one in built.patch.outcomes],
    }
    if json:
        print_json(result)
    else:
        _tell(result)
        print_outcomes(built.patch.outcomes)
    _options.check_strict(strict, built.patch.outcomes)


def _tell(result: dict[str, Any]) -> None:
    warn_of_similar(result["similar"])
    typer.echo(
        f"{result['edits']} edits by {result['method']}, {result['solved']} of them solved for, "
        f"in {result['seconds']:.1f} s: {result['output_path']}"
    )
    typer.echo(f"build {result['build']}, patch {result['patch_hash'][:16]}")
