"""Trained networks on disk: safetensors with what they are in its header, and a JSON to read.

hypernetwork.safetensors    the best network so far; all that editing needs
hypernetwork.json           the same description, for people
checkpoint.safetensors      the network as it stands and its optimiser; all that resuming needs
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from emend import lab
from emend._io import whole_file, write_json
from emend._registry import Registry
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.methods.hypernetwork._network import Hypernetwork
from emend.patches import base_difference

NETWORK = "hypernetwork.safetensors"
CARD = "hypernetwork.json"
CHECKPOINT = "checkpoint.safetensors"
LAB = "lab/"


def networks() -> Registry[type[Hypernetwork]]:
    """The hypernetworks there are."""
    return Registry(
        kind="hypernetwork",
        packages=["emend.methods.hypernetwork"],
        group="emend.hypernetworks",
        attribute="Network",
    )


def state_directory(method: str, model: Any, state: str | None) -> Path:
    """Where the trained network of a model is: where it is said to be, or in the model's own.

    A model's own directory is that of its weights; `<directory>/<method>` is looked at.

    Raises:
        MissingFile: There is none; the message says how to train one.
    """
    name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if state is not None:
        place = Path(state).expanduser()
    elif name.startswith(LAB) and name.removeprefix(LAB) in lab.names():
        place = lab.path(name.removeprefix(LAB)) / method
    else:
        place = Path(name or ".") / method
    if not (place / NETWORK).is_file():
        where = f"{place} holds" if state is not None else f"{name or 'the model'} brings"
        of = shlex.quote(name) if name else "MODEL"
        raise MissingFile(
            f"{where} no trained network of {method}, expected {NETWORK}: train one with "
            f"`emend train --method {method} --model {of} --output_path {method}/` "
            f"and pass state={method}/"
        )
    return place


def save_network(
    directory: Path,
    method: str,
    network: Hypernetwork,
    base: Mapping[str, Any],
    validation: Mapping[str, Any],
) -> None:
    """Write a network, aside and renamed.

    Weights are kept in bfloat16 and statistics in float32: an edit does not show the difference.
    """
    card = {
        "method": method,
        "base": dict(base),
        "validation": dict(validation),
        **network.describe(),
    }
    trained = {name for name, _ in network.named_parameters()}
    tensors = {
        name: tensor.detach().cpu().to(torch.bfloat16 if name in trained else torch.float32)
        for name, tensor in network.state_dict().items()
    }
    write_tensors(directory / NETWORK, tensors, card, directory / CARD)


def load_network(
    directory: Path, method: str, base: Mapping[str, Any], *, allow_other_base: bool = False
) -> Hypernetwork:
    """Read a trained network back.

    Args:
        directory: As `state_directory` finds it.
        method: The hypernetwork's name.
        base: What `describe_base` says of the model that shall be edited.
        allow_other_base: Whether a network trained on another model is taken.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: It is of another method, or trained on another model.
    """
    tensors, card = read_tensors(
        directory / NETWORK, method, base, allow_other_base=allow_other_base
    )
    kind = networks().get(method)
    given: dict[str, Any] = {
        name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for name, value in card["settings"].items()
    }
    shapes = {name: (shape[0], shape[1]) for name, shape in card["shapes"].items()}
    network = kind(shapes, card["width"], kind.settings_type(**given))
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise BrokenFile(
            f"{directory / NETWORK} does not fit its own description: train the network again"
        ) from error
    return network.eval()


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], beside: Path
) -> None:
    """Write what was trained with its card in the header, and the card again for people."""
    _write(path, tensors, card)
    write_json(beside, card)


def read_tensors(
    path: Path, method: str, base: Mapping[str, Any], *, allow_other_base: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, of the right method and for the right model.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: It is of another method, or trained on another model.
    """
    tensors, card = _read(path)
    if card.get("method") != method:
        raise InvalidInput(
            f"{path.parent} holds a network of {card.get('method')!r}, expected one of "
            f"{method!r}: take method={card.get('method')!r} or another state"
        )
    difference = base_difference(card["base"], base)
    if difference is not None and not allow_other_base:
        raise InvalidInput(
            f"the network in {path.parent} was trained on {card['base'].get('name') or 'a model'} "
            f"with {difference[0]}, but the model has {difference[1]}: train one for this model "
            f"with `emend train --method {method}`"
        )
    return tensors, card


def save_checkpoint(
    directory: Path,
    network: Hypernetwork,
    optimizer: torch.optim.Optimizer,
    key: str,
    progressed: Mapping[str, Any],
) -> None:
    """Write what resuming needs, aside and renamed."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for number, held in optimizer.state_dict()["state"].items():
        for name, value in held.items():
            tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    _write(directory / CHECKPOINT, tensors, {"key": key, "progress": dict(progressed)})


def load_checkpoint(
    directory: Path, network: Hypernetwork, optimizer: torch.optim.Optimizer, key: str
) -> dict[str, Any] | None:
    """Bring network and optimiser to where a training ended; None where there was none.

    Raises:
        InvalidInput: It was a training of something else, or with other edits or settings.
    """
    path = directory / CHECKPOINT
    if not path.is_file():
        return None
    tensors, said = _read(path)
    if said["key"] != key:
        raise InvalidInput(
            f"{directory} holds a training of another model, of other edits or with other "
            "settings: give the same to continue it, or another directory"
        )
    prefix = "network."
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if prefix in name[:8]}
    )
    held: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, part = name.split(".", 2)
            held.setdefault(int(number), {})[part] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})
    return said["progress"]


def _write(path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    settled = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as aside:
        save_file(settled, aside, metadata={"emend": json.dumps(said)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {})["emend"])
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise BrokenFile(f"{path} cannot be read: train the network again") from error
