"""`emend train`: train what a method edits with, on the lab's edits or on one's own."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory, read_edits
from emend.cli._options import flag
from emend.cli._output import percent, print_json
from emend.edits import Edit
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend train --method mend --model lab/gptneo --output_path mend/",
    "emend train --method mend --model MODEL --edits edits.jsonl --set rank=128 \\",
    "      --output_path mend/",
    "emend edit --method mend --set state=mend/ --model MODEL --edits new.jsonl \\",
    "      --output_path patch/",
    "",
    "emend train --method serac --model lab/gptneo --output_path serac/",
    "",
    "Killed or stopped, it goes on where it was when it is called again (serac begins anew).",
)

VALIDATED = 0.1
"""Part of the subjects of --edits that is validated on and not trained on."""


_Method = Annotated[str, flag("What to train: mend, ke, malmen or serac.", metavar="NAME")]


def command(
    *,
    model: _options.Model,
    output_path: Annotated[Path, flag("Where to keep the network.", metavar="DIRECTORY")],
    method: _Method = "mend",
    edits: _options.Edits = None,
    steps: Annotated[int | None, flag("Steps of training, at most.", min=1)] = None,
    settings: _options.Settings,
    seed: Annotated[int | None, flag("Seed of weights and draws.")] = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Train what a method edits a model with, on edits with their probes (by default the lab's)."""
    output_directory(output_path)
    own = _edits(edits, model)
    from emend import methods

    trainer = methods.trainer(method)
    kind: Any = trainer.settings_type
    chosen = kind(**settings.of(method, kind, steps=steps, seed=seed))
    training, validation = methods.lab_split() if own is None else split(own)
    network, tokenizer = loading.load(model)
    started = time.perf_counter()
    found = trainer.train(
        *(network, tokenizer, training, validation, output_path, chosen),
        report=None if json else _tell(chosen.steps),
    )
    result = {
        "model": model,
        "method": method,
        "training_edits": len(training),
        "validation_edits": len(validation),
        "seconds": time.perf_counter() - started,
        "output_path": output_path,
        "validation": dataclasses.asdict(found),
    }
    print_json(result) if json else _tell_of(result)


def _edits(path: Path | None, model: str) -> list[Edit] | None:
    """Read the edits of the file; None for the lab's own."""
    if path is not None:
        return read_edits(path)
    if model.startswith("lab/"):
        return None
    raise InvalidInput(
        f"no --edits are given for {model}, expected a file of edits to train on: "
        "only models of the lab come with edits of their own"
    )


def split(edits: list[Edit]) -> tuple[list[Edit], list[Edit]]:
    """Split edits into those to train on and to validate on, with no subject in both.

    Raises:
        InvalidInput: All edits have one subject.
    """
    subjects = sorted({edit.subject for edit in edits})
    if len(subjects) < 2:
        raise InvalidInput(
            f"{len(edits)} edits of {len(subjects)} subject, expected at least 2 subjects, "
            "one to validate on: give more edits"
        )
    count = max(1, round(VALIDATED * len(subjects)))
    step = len(subjects) / count
    chosen = {subjects[int(number * step)] for number in range(count)}
    training = [edit for edit in edits if edit.subject not in chosen]
    return training, [edit for edit in edits if edit.subject in chosen]


def _tell_of(result: dict[str, Any]) -> None:
    state = result["output_path"]
    typer.echo(f"kept the network of step {result['validation']['step']}: {state}")
    words = ["emend", "edit", "--model", result["model"], "--method", result["method"]]
    words += ["--set", f"state={state}"]
    typer.echo(f"edit with it: {shlex.join(words)} --edits FILE --output_path patch/")


def _tell(steps: int) -> Callable[[Any], None]:
    def tell(found: Any) -> None:
        typer.echo(
            f"step {found.step} of {steps}: loss {found.loss:.3f}, "
            f"reliability {percent(found.reliability)}, "
            f"generalization {percent(found.generalization)}, "
            f"locality {percent(found.locality)}"
        )

    return tell
