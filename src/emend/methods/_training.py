"""What trained methods share: how a training is measured, the loss of targets, states on disk.

    hypernetwork.safetensors    what was trained, with its description in the header
    hypernetwork.json           the same description, to read

Each is written aside and renamed, so that a kill at any moment leaves whole files.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import lab
from emend._io import whole_file, write_json
from emend.editing.gradients import forward_at, linear_modules, mlp_modules, target_places
from emend.editing.rows import Row, pack
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, MissingFile, NumericalFailure
from emend.models import ModelView, base, ensure_start, join_targets
from emend.models.forward import evaluating
from emend.models.hooks import frozen
from emend.models.positions import pad
from emend.models.structure import projection_shape
from emend.patches import base_difference

STATE = "hypernetwork.safetensors"
CARD = "hypernetwork.json"
LAB = "lab/"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps made.
        loss: Mean loss of the steps since the last validation.
        reliability: Share of validation edits whose every target token is the most probable one,
            in the edit's own words (teacher-forced); of the objective "even" the mean of the
            smaller of the two probabilities over the larger.
        generalization: The same in a rewording.
        locality: Share of locality texts of which every answer token is as probable first after
            the edit as before.
    """

    step: int
    loss: float
    reliability: float
    generalization: float
    locality: float

    @property
    def score(self) -> float:
        """What decides which weights are saved: the harmonic mean of the three shares."""
        shares = (self.reliability, self.generalization, self.locality)
        return 0.0 if min(shares) <= 0 else len(shares) / sum(1 / share for share in shares)


@contextmanager
def training_on(
    model: Any, tokenizer: Any, training: Sequence[Edit], validation: Sequence[Edit]
) -> Generator[None, None, None]:
    """Hold the model inside the block: nothing attached acts, no dropout, no gradient of its own.

    Raises:
        InvalidInput: There are no edits to train on, or none to validate on.
    """
    if not training or not validation:
        raise InvalidInput(
            f"{len(training)} edits to train on and {len(validation)} to validate on, "
            "expected at least one of each: give more edits"
        )
    ensure_start(model, tokenizer)
    with base(model), evaluating(model), frozen(model):
        yield


def backward(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Compute the gradients of a loss, and return it as a number.

    Raises:
        NumericalFailure: It is not finite.
    """
    found = float(loss.detach())
    if not abs(found) < float("inf"):
        raise NumericalFailure(
            f"the loss is {found}, expected a finite number: lower learning_rate, or load the "
            "model in float32"
        )
    optimizer.zero_grad()
    loss.backward()
    return found


def mlp_shapes(view: ModelView, layers: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return the shapes (out, in) of the MLP matrices of some blocks, by name.

    Raises:
        InvalidInput: There is no such block.
    """
    names: list[str] = []
    for layer in sorted(view.numbered(layers)):
        into, down = mlp_modules(view, layer)
        names += [*into, down]
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in linear_modules(view, names).items():
        shape = projection_shape(module)
        assert shape is not None
        shapes[name] = shape
    return shapes


def target_rows(tokenizer: Any, prompts: Sequence[str], targets: Sequence[str]) -> list[Row]:
    """Return the rows of prompts with their targets; no subject is looked up."""
    joined = join_targets(tokenizer, prompts, targets)
    return [Row((*prompt, *target[:-1]), 0, tuple(target)) for prompt, target in joined]


def target_logits(
    view: ModelView,
    rows: Sequence[Row],
    acting: Callable[[Sequence[int]], AbstractContextManager[None]],
) -> Tensor:
    """Return the logits (M, vocabulary) that predict the rows' target tokens, in the rows' order.

    Args:
        view: The model.
        rows: Prompts with their targets.
        acting: Makes a context that the rows of the given numbers are run in.
    """
    found: list[Tensor] = [torch.empty(0, view.vocabulary)] * len(rows)
    for members in pack([len(row.ids) for row in rows]):
        chosen = [rows[number] for number in members]
        places, _, _ = target_places(chosen)
        with acting(members):
            logits = forward_at(view, pad([row.ids for row in chosen]), *places).float()
        split = logits.split([len(row.targets) for row in chosen])
        for number, part in zip(members, split, strict=True):
            found[number] = part
    return torch.cat(found) if found else torch.empty(0, view.vocabulary)


def state_directory(method: str, model: Any, state: str | None) -> Path:
    """Find what was trained for a model: in the directory given, or in the model's own.

    A model's own directory is that of its weights; `<directory>/<method>` is looked at.

    Raises:
        MissingFile: There is none; the message states how to train one.
    """
    name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if state is not None:
        place = Path(state).expanduser()
    elif name.startswith(LAB) and name.removeprefix(LAB) in lab.names():
        place = lab.path(name.removeprefix(LAB)) / method
    else:
        place = Path(name or ".") / method
    if not (place / STATE).is_file():
        where = f"{place} holds" if state is not None else f"{name or 'the model'} brings"
        of = shlex.quote(name) if name else "MODEL"
        raise MissingFile(
            f"{where} no trained network of {method}, expected {STATE}: train one with "
            f"`emend train --method {method} --model {of} --output_path {method}/` "
            f"and pass state={method}/"
        )
    return place


def save_state(
    directory: Path,
    method: str,
    base: Mapping[str, Any],
    validation: Progress,
    tensors: Mapping[str, Tensor],
    **described: Any,
) -> None:
    """Write what was trained with its card in the header, and the card again for people."""
    card = {"method": method, "base": dict(base), "validation": vars(validation), **described}
    write_tensors(directory / STATE, tensors, card)
    write_json(directory / CARD, card)


def load_state(
    directory: Path, method: str, base: Mapping[str, Any], *, allow_other_base: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, in float32, and the card that `save_state` wrote.

    Args:
        directory: As `state_directory` finds it.
        method: What it must be trained for.
        base: What `describe_base` states of the model to be edited.
        allow_other_base: Whether a state trained on another model is taken.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: It is of another method, or trained on another model.
    """
    tensors, card = read_tensors(directory / STATE)
    if card.get("method") != method:
        raise InvalidInput(
            f"{directory} holds a network of {card.get('method')!r}, expected one of "
            f"{method!r}: take method={card.get('method')!r} or another state"
        )
    difference = base_difference(card["base"], base)
    if difference is not None and not allow_other_base:
        raise InvalidInput(
            f"the network in {directory} was trained on {card['base'].get('name') or 'a model'} "
            f"with {difference[0]}, but the model has {difference[1]}: train one for this model "
            f"with `emend train --method {method}`"
        )
    return {name: tensor.float() for name, tensor in tensors.items()}, card


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able header into one safetensors file."""
    from safetensors.torch import save_file

    settled = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as aside:
        save_file(settled, aside, metadata={"emend": json.dumps(header)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        BrokenFile: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["emend"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise BrokenFile(f"{path} cannot be read: train the network again") from error
