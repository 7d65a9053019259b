"""Reading patches that commands are given: saved ones, and adapters of other makers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from emend.patches import Patch

AdapterModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The model that a LoRA adapter is for, to check it; a .gguf adapter needs it.",
        metavar="MODEL",
    ),
]


def read_early(path: Path) -> Patch | None:
    """Read a patch before its model is loaded; None for a GGUF adapter, which needs the model.

    Raises:
        EmendError: It cannot be read.
    """
    from emend.patches import is_gguf, load_patch

    return None if is_gguf(path) else load_patch(path)


def read_all(paths: list[Path], model: str | None) -> list[Patch]:
    """Read patches, with the model that --model names for adapters among them.

    Raises:
        EmendError: One cannot be read.
    """
    from emend.models import load
    from emend.patches import load_patch

    network: Any = None
    if model is not None:
        network, _ = load(model)
    return [load_patch(path, network) for path in paths]
