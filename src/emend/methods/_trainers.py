"""What can be trained by its method's name: hypernetworks, and what SERAC answers with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from emend.errors import UnknownName
from emend.methods.hypernetwork._state import networks
from emend.methods.hypernetwork._training import Progress, train
from emend.methods.serac import training as scope


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
    """The trainer of a method.

    Raises:
        UnknownName: The method is not trained.
    """
    if name == scope.NAME:
        return Trainer(scope.ScopeSettings, scope.train_scope)
    if name not in networks():
        raise UnknownName("method to train", name, [*networks().names(), scope.NAME])
    return Trainer(networks().get(name).settings_type, partial(train, name))
