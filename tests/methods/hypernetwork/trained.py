"""Hypernetworks trained for two steps on a tiny model: enough to edit with."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tests.tiny import tiny_model

from emend.edits import Edit, Probe
from emend.methods import trainer

NAMES = ("ke", "malmen", "mend")
STATED = (*NAMES, "serac")
"""Methods that edit with what was trained."""
TRAINING = [
    Edit(
        "{} was born in",
        f"Marie {name}",
        place,
        original="Lyon",
        probes=(
            Probe("rephrase", f"The birthplace of Marie {name} is", (place,)),
            Probe("neighborhood", f"Tom {name} was born in", ("Warsaw",)),
        ),
    )
    for name, place in (("Berg", "Paris"), ("Holm", "Berlin"), ("Lund", "Rome"), ("Poe", "Oslo"))
]
SHORT = {
    **{"steps": 2, "batch_size": 2, "validate_every": 1, "rank": 4, "hidden": 4},
    **{"size": 8, "scope_steps": 50},
}


def settings(name: str, **changes):
    """Settings of a training of seconds."""
    kind = trainer(name).settings_type
    known = {key: value for key, value in SHORT.items() if key in kind.__dataclass_fields__}
    return kind(**{**known, **changes})


@cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emend-tests-")


@cache
def trained_state(name: str, architecture: str) -> str:
    """Directory of a network trained on the tiny model of an architecture."""
    model, tokenizer = tiny_model(architecture)
    directory = Path(_root().name) / f"{name}-{architecture}"
    trainer(name).train(model, tokenizer, TRAINING[:3], TRAINING[3:], directory, settings(name))
    return str(directory)
