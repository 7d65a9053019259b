"""What can be trained by its method's name, and the lab's edits that it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from emend import datasets
from emend.edits import Edit
from emend.errors import UnknownName
from emend.methods._training import Progress
from emend.methods.hypernetwork._network import networks
from emend.methods.hypernetwork._training import train
from emend.methods.serac import training as scope

TESTED = (0, 1)
"""Seeds of the lab's dataset that are tested with; seed 1 is that of the benchmarks."""
FIRST = 200
"""No subject of this number of first edits of these seeds is trained on."""
VALIDATION_SEED = 2
TRAINING_SEED = 1000


@dataclass(frozen=True)
class Trainer:
    """How a method is trained.

    Attributes:
        settings_type: Its dataclass of settings.
        train: (model, tokenizer, training, validation, directory, settings, report=) -> Progress.
    """

    settings_type: type
    train: Callable[..., Progress]


def trainer(name: str) -> Trainer:
    """Return the trainer of a method.

    Raises:
        UnknownName: The method is not trained.
    """
    if name == scope.NAME:
        return Trainer(scope.ScopeSettings, scope.train_scope)
    if name not in networks():
        raise UnknownName("method to train", name, trained())
    return Trainer(networks().get(name).settings_type, partial(train, name))


def trained() -> list[str]:
    """Return the names of the methods that are trained."""
    return [*networks().names(), scope.NAME]


def lab_split(validation: int = 60, draws: int = 4) -> tuple[list[Edit], list[Edit]]:
    """Return edits of the lab to train on and to validate on, apart from those tested with.

    No two of the three share a subject: training never sees an edit of a subject that is tested.
    (The neighbors of a training edit, which must not change, may be about any subject.)

    Args:
        validation: How many to validate on.
        draws: How often each fact is among the training edits, each time with a prompt and a
            target drawn anew.

    Returns:
        (training, validation).
    """
    tested = {
        edit.subject for seed in TESTED for edit in datasets.load("lab", limit=FIRST, seed=seed)
    }
    others = datasets.load("lab", limit=6 * validation, seed=VALIDATION_SEED)
    checked = [edit for edit in others if edit.subject not in tested][:validation]
    taken = tested | {edit.subject for edit in checked}
    training = [
        edit
        for draw in range(draws)
        for edit in datasets.load("lab", seed=TRAINING_SEED + draw)
        if edit.subject not in taken
    ]
    return training, checked
