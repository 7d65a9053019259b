"""Read a LoRA adapter in a GGUF file, as llama.cpp loads them, as a patch of a model.

llama.cpp computes ``y + s B A x`` with ``s = alpha / rank(B)``, or 1 where alpha is 0. Tensors bear
its own names, and the rows of some query and key projections another order: both are undone by the
model's configuration (`emend.models.gguf_names`), so that a model is needed to read one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import BrokenFile, InvalidInput, first_line
from emend.models.gguf import check_reader
from emend.models.gguf_header import Header, read_header
from emend.models.gguf_names import GgufNames, gguf_names
from emend.models.wrapping import plain_modules
from emend.patches._base import describe_base
from emend.patches._factors import LowRank
from emend.patches._weight import WeightPatch

MAGIC = b"GGUF"
PEFT_FORM = "take the adapter in PEFT's form"


def is_gguf(path: Path) -> bool:
    """Return whether a path is a file that begins as GGUF files do, or is named like one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.suffix == ".gguf"


def read_gguf(path: Path, model: nn.Module | None) -> WeightPatch:
    """Read a GGUF adapter.

    Args:
        path: The file.
        model: The model that it is for.

    Returns:
        A weight patch without edits, whose ``base`` holds the name that the file states.

    Raises:
        MissingExtra: The package gguf is not installed.
        BrokenFile: It is no GGUF file, or cut short.
        InvalidInput: There is no model, it is of another architecture, or the file holds something
            else than low-rank changes of its linear layers.
        UnsupportedModel: gguf knows no architecture for the model.
    """
    if model is None:
        raise InvalidInput(
            f"{path} names tensors as llama.cpp does, expected the model that they are of: "
            "pass model=MODEL"
        )
    check_reader(path.name)
    header = read_header(path, whole=False)
    kinds = [str(header.values.get(key)) for key in ("general.type", "adapter.type")]
    if kinds != ["adapter", "lora"]:
        raise InvalidInput(
            f"{path} is a GGUF file of type {kinds[0]} ({kinds[1]}), expected an adapter (lora): "
            "give the adapter's file"
        )
    names = gguf_names(describe_base(model))
    if header.architecture != names.architecture:
        raise InvalidInput(
            f"{path} is for a model of the architecture {header.architecture!r}, and "
            f"{type(model).__name__} is one of {names.architecture!r}: give the model it is for"
        )
    modules = names.modules(name for name, _ in plain_modules(model) if name)
    name = str(header.values.get("general.base_model.0.name", ""))
    return WeightPatch(factors=_factors(path, header, names, modules), base={"name": name})


def _factors(
    path: Path, header: Header, names: GgufNames, modules: Mapping[str, str]
) -> dict[str, LowRank]:
    tensors = _tensors(path)
    alpha = float(header.values.get("adapter.lora.alpha", 0.0))
    factors: dict[str, LowRank] = {}
    for name in dict.fromkeys(key.rpartition(".lora_")[0] or key for key in tensors):
        halves = [f"{name}.lora_{side}" for side in "ab"]
        found = [half for half in halves if half in tensors]
        if not found:
            raise _refused(path, name, "no half of a low-rank change")
        if len(found) < 2:
            (other,) = set(halves) - set(found)
            raise BrokenFile(
                f"{path} has {found[0]} without {other}, expected both halves of each change: "
                "convert or download the adapter again"
            )
        tensor = name.removesuffix(".weight")
        if tensor not in modules or tensor == "token_embd":
            raise _refused(path, name, f"of no linear layer of {names.architecture!r}")
        a, b = (tensors[half] for half in halves)
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise _refused(path, f"{name} with factors of shape {shapes}", "no pair of matrices")
        try:
            b = names.from_gguf(tensor, b)
        except (InvalidInput, RuntimeError):  # an order that is not known, or heads that do not fit
            raise InvalidInput(
                f"{path} changes {name}, whose order of rows in GGUF files of "
                f"{names.architecture!r} is not known for this model: {PEFT_FORM}"
            ) from None
        factors[modules[tensor]] = LowRank(a, b * (alpha / b.shape[1] if alpha else 1.0))
    return factors


def _refused(path: Path, found: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} has {found} ({what}), expected pairs of lora_a and lora_b of linear layers alone: "
        "take an adapter without it, or the merged model"
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a GGUF file in float32, with the order of sizes that torch has."""
    import gguf

    found: dict[str, Tensor] = {}
    try:
        for one in gguf.GGUFReader(path).tensors:
            values: Any = gguf.dequantize(one.data, one.tensor_type)
            found[one.name] = torch.tensor(values, dtype=torch.float32)
    except (ValueError, IndexError, OSError) as error:
        raise BrokenFile(
            f"{path} is cut short or broken after its header ({first_line(error)}): get it again"
        ) from None
    if not found:
        raise BrokenFile(f"{path} holds no tensors, expected pairs of lora_a and lora_b")
    return found
