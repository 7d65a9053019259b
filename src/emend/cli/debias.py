"""`emend debias`: make two pronouns equally probable after occupations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import print_json
from emend.cli.fairness import given_occupations, print_fairness
from emend.fairness.occupations import HELD_OUT, Occupations

EXAMPLES = _options.examples(
    "emend debias --model smollm2-135m --output_path patch/",
    "emend debias --model smollm2-135m --occupations jobs.txt --method memit --output_path patch/",
    "emend debias --model lab/gptneo --set passes=3 --set prompts=120 --output_path patch/",
    "",
    "Every fourth occupation and template is not edited, and measured. See also `emend fairness`.",
)

TITLES = {
    "edited": "Edited occupations and templates",
    "held_out": "Held-out occupations and templates",
    "contrasts": "Held-out people whose pronoun is no stereotype: it should not move",
}


_Method = Annotated[
    str,
    flag(
        "shared (one change for all occupations, which acts on others too), or a method that "
        "edits each occupation: memit, alphaedit, rome, ft.",
        metavar="NAME",
    ),
]
_Occupations = Annotated[
    Path | None, flag("Occupations, one a line or JSON; some ship.", metavar="FILE")
]
_Templates = Annotated[
    Path | None, flag('Templates, one a line, with "{}" for the occupation.', metavar="FILE")
]
_HeldOut = Annotated[
    int, flag("Leave out every n-th occupation and template, and measure them; 0: none.")
]


def command(
    *,
    model: _options.Model,
    output_path: _options.PatchPath,
    method: _Method = "shared",
    occupations: _Occupations = None,
    templates: _Templates = None,
    held_out: _HeldOut = HELD_OUT,
    settings: _options.Settings,
    seed: Annotated[int | None, flag("Seed of methods that draw something.")] = None,
    batch_size: _options.BatchSize = 32,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Make two pronouns equally probable after occupations: make a patch, save and measure it."""
    subjects = given_occupations(occupations, templates)
    edited, others = subjects.split(held_out)
    output_directory(output_path)
    from emend import fairness
    from emend.fairness.shared import SHARED

    config_type = fairness.SharedSettings if method == SHARED else None
    chosen = settings.of(method, config_type, seed=seed)
    network, tokenizer = loading.load(model)
    began = time.perf_counter()
    patch = fairness.debias(network, tokenizer, edited, method, **chosen)
    seconds = time.perf_counter() - began
    patch.save_pretrained(output_path)  # before the check: stopping that loses nothing
    parts = {"edited": edited, **(_held_out(others) if held_out else {})}
    gaps = {
        name: fairness.pronoun_gap(network, tokenizer, part, patch, batch_size=batch_size)
        for name, part in parts.items()
    }
    found = {name: {"dataset": "pronouns", **gap.to_dict()} for name, gap in gaps.items()}
    if json:
        print_json(
            {
                **{"model": model, "method": method, "seconds": seconds},
                **{"output_path": output_path, **found},
            }
        )
        return
    for name, one in found.items():
        print_fairness(one, TITLES[name])
    typer.echo(
        f"wrote {output_path} in {seconds:.0f} s: emend fairness --model {model} --patch ..."
    )


def _held_out(others: Occupations) -> dict[str, Occupations]:
    """Return what is measured and was not edited, by the names of `TITLES`."""
    contrasts = {"contrasts": others.contrasting} if others.contrasts else {}
    return {"held_out": others, **contrasts}
