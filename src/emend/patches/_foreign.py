"""Reading LoRA adapters of other makers as weight patches: PEFT's, and those in GGUF files.

PEFT computes ``y + s B A x`` with one scale for each module,

    s = alpha / r                                   or alpha / sqrt(r) with use_rslora,

where ``rank_pattern`` and ``alpha_pattern`` may give a module an r and an alpha of its own.
llama.cpp has ``s = alpha / rank(B)``, or 1 where alpha is 0. The scale is multiplied into B here,
so that the change is B A as everywhere in emend.

Tensors of GGUF files have llama.cpp's names, and the rows of some query and key projections
another order: the model's configuration undoes both (`emend.models.gguf_names`), so that reading
one needs the model. Adapters that are no sum of low-rank changes of weights, or that need weights
they do not hold, are refused.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emend._validate import shown
from emend.errors import BrokenFile, InvalidInput, first_line
from emend.models.gguf import Header, check_reader, read_header
from emend.models.gguf_names import GgufNames, gguf_names
from emend.models.wrapping import plain_modules
from emend.patches._base import describe_base
from emend.patches._factors import LowRank
from emend.patches._files import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    KEY_PREFIX,
    read_json,
    read_tensors,
)
from emend.patches._weight import WeightPatch

logger = logging.getLogger("emend")

MAGIC = b"GGUF"
PEFT_FORM = "take the adapter in PEFT's form"
MERGE = "merge it into its base with PEFT (merge_and_unload) and load or audit that model"

_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA rescales the columns of the changed weight",
    "lora_bias": "biases are changed",
    "modules_to_save": "whole modules are replaced",
    "trainable_token_indices": "rows of the embedding are replaced",
    "target_parameters": "parameters that belong to no linear layer are changed",
    "layer_replication": "layers are repeated",
    "alora_invocation_tokens": "aLoRA acts only after an invocation text",
    "use_qalora": "QALoRA pools the inputs",
    "use_bdlora": "BD-LoRA has factors in blocks",
    "arrow_config": "Arrow routes each token between adapters",
    "monteclora_config": "MonteCLoRA samples its factors",
    "kasa_config": "KaSA truncates the base's weights",
    "lora_ga_config": "LoRA-GA subtracts its initial values from the base's weights",
}
"""Fields by which an adapter is more than low-rank changes of the base, with the reason."""

_HARMLESS = frozenset(
    "peft_type bias r lora_alpha use_rslora rank_pattern alpha_pattern fan_in_fan_out "
    "init_lora_weights base_model_name_or_path task_type auto_mapping peft_version revision "
    "inference_mode target_modules exclude_modules lora_dropout layers_to_transform "
    "layers_pattern megatron_config megatron_core loftq_config eva_config corda_config "
    "velora_config qalora_group_size runtime_config ensure_weight_tying".split()
)
"""Fields that are read here, or that only concern the adapter's training."""

_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that change the base's weights, unless the adapter was converted afterwards."""


def read_peft(directory: Path) -> WeightPatch:
    """Read a directory with adapter_config.json and adapter_model.safetensors.

    Returns:
        A weight patch without edits. Its ``base`` holds only the name that the adapter states, so
        that names and shapes of modules are checked against a model, and its weights are not.

    Raises:
        MissingFile: One of the files is not there.
        BrokenFile: A file is cut short, not of its format, or the two do not belong together.
        InvalidInput: The adapter is no sum of low-rank changes of weight matrices.
    """
    config = read_json(directory / ADAPTER_CONFIG)
    _check_config(directory / ADAPTER_CONFIG, config)
    path = directory / ADAPTER_TENSORS
    if not path.exists() and (directory / "adapter_model.bin").exists():
        raise InvalidInput(
            f"{directory} holds adapter_model.bin, a pickle, expected {ADAPTER_TENSORS}: load it "
            "with PEFT and save it again (save_pretrained), which writes safetensors"
        )
    tensors = read_tensors(path)
    names = _module_names(path, tensors)
    return WeightPatch(
        factors={name: _peft_factor(directory, config, name, tensors) for name in names},
        base={
            "name": str(config.get("base_model_name_or_path") or ""),
            "fan_in_fan_out": bool(config.get("fan_in_fan_out")),
        },
    )


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InvalidInput(
            f"{path} has peft_type={kind!r}, expected 'LORA', which changes weights by low-rank "
            f"matrices: {MERGE}"
        )
    for name, what in _REFUSED.items():
        if config.get(name):
            raise _peft_refused(path, f"{name}={shown(config[name], 40)}", what)
    if config.get("bias", "none") != "none":
        raise _peft_refused(path, f"bias={config['bias']!r}", "biases are changed")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_MOVES_BASE):
        raise InvalidInput(
            f"{path} has init_lora_weights={start!r}, expected an adapter for the published "
            "base, whose weights its initialisation did not change: save it again with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    unknown = sorted(name for name in config if name not in _HARMLESS and config[name])
    if unknown:
        logger.info("%s has %s, unknown to emend and ignored", path, ", ".join(unknown))


def _peft_refused(path: Path, found: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} has {found} ({what}), expected low-rank changes of weight matrices alone: {MERGE}"
    )


def _module_names(path: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    names: dict[str, None] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(KEY_PREFIX)
        for side in "AB":
            name = name.removesuffix(f".lora_{side}.weight")
        pair = {side: f"{KEY_PREFIX}{name}.lora_{side}.weight" for side in "AB"}
        if key not in pair.values():
            raise _peft_refused(path, key, _kind_of(key))
        for other in pair.values():
            if other not in tensors:
                raise BrokenFile(
                    f"{path} has {key} without {other}, expected both halves of each change: "
                    "save or download the adapter again"
                )
        if tensor.ndim != 2:
            raise _peft_refused(path, f"{key} of shape {tuple(tensor.shape)}", "no linear layer's")
        names[name] = None
    if not names:
        raise BrokenFile(f"{path} holds no tensors, expected pairs of lora_A and lora_B: save it")
    return sorted(names)


def _kind_of(key: str) -> str:
    """Describe a tensor that is no half of a low-rank change."""
    if not key.startswith(KEY_PREFIX):
        return f"a name that does not begin with {KEY_PREFIX}"
    kinds = {
        "lora_embedding_": "low-rank change of an embedding",
        "lora_magnitude_vector": "a magnitude of DoRA",
        ".base_layer.": "a weight of the base; save_embedding_layers=False leaves it out",
        ".bias": "a bias",
        ".weight": "a whole weight",
    }
    return next((what for mark, what in kinds.items() if mark in key), "an unknown tensor")


def _peft_factor(
    directory: Path, config: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor]
) -> LowRank:
    a, b = (tensors[f"{KEY_PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
    rank = _number(directory, config, "r", "rank_pattern", name)
    alpha = _number(directory, config, "lora_alpha", "alpha_pattern", name)
    if not rank == a.shape[0] == b.shape[1]:
        raise BrokenFile(
            f"{directory / ADAPTER_TENSORS} has {name} with lora_A of {a.shape[0]} rows and lora_B "
            f"of {b.shape[1]} columns, expected {rank:g} of each by {ADAPTER_CONFIG}: take the two "
            "files from one adapter"
        )
    return LowRank(a, b * (alpha / (rank**0.5 if config.get("use_rslora") else rank)))


def _number(
    directory: Path, config: Mapping[str, Any], name: str, pattern: str, module: str
) -> float:
    """Return a module's r or alpha: of the first matching pattern, as in PEFT, or the main one."""
    own: Mapping[str, Any] = config.get(pattern) or {}
    fits = (key for key in own if re.match(rf"(.*\.)?({key})$", module))
    value: Any = own.get(next(fits, ""), config.get(name))
    if type(value) not in (int, float) or (name == "r" and value < 1):
        raise BrokenFile(
            f"{directory / ADAPTER_CONFIG} has {name}={value!r} for {module}, expected a number: "
            "save or download the adapter again"
        )
    return float(value)


def is_gguf(path: Path) -> bool:
    """Return whether a path is a file with the beginning or the name of a GGUF file."""
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
        InvalidInput: There is no model, it has another architecture, or the file holds something
            other than low-rank changes of its linear layers.
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
    return WeightPatch(factors=_gguf_factors(path, header, names, modules), base={"name": name})


def _gguf_factors(
    path: Path, header: Header, names: GgufNames, modules: Mapping[str, str]
) -> dict[str, LowRank]:
    tensors = _gguf_tensors(path)
    alpha = float(header.values.get("adapter.lora.alpha", 0.0))
    factors: dict[str, LowRank] = {}
    for name in dict.fromkeys(key.rpartition(".lora_")[0] or key for key in tensors):
        halves = [f"{name}.lora_{side}" for side in "ab"]
        there = [half for half in halves if half in tensors]
        if not there:
            raise _gguf_refused(path, name, "no half of a low-rank change")
        if len(there) < 2:
            (other,) = set(halves) - set(there)
            raise BrokenFile(
                f"{path} has {there[0]} without {other}, expected both halves of each change: "
                "convert or download the adapter again"
            )
        tensor = name.removesuffix(".weight")
        if tensor not in modules or tensor == "token_embd":
            raise _gguf_refused(path, name, f"of no linear layer of {names.architecture!r}")
        a, b = (tensors[half] for half in halves)
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            found = f"{name} with factors of shape {tuple(a.shape)} and {tuple(b.shape)}"
            raise _gguf_refused(path, found, "no pair of matrices")
        try:
            b = names.from_gguf(tensor, b)
        except (InvalidInput, RuntimeError):  # an order that is not known, or heads that do not fit
            raise InvalidInput(
                f"{path} changes {name}, whose order of rows in GGUF files of "
                f"{names.architecture!r} is not known for this model: {PEFT_FORM}"
            ) from None
        factors[modules[tensor]] = LowRank(a, b * (alpha / b.shape[1] if alpha else 1.0))
    return factors


def _gguf_refused(path: Path, found: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} has {found} ({what}), expected pairs of lora_a and lora_b of linear layers alone: "
        "take an adapter without it, or the merged model"
    )


def _gguf_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a GGUF file in float32, with their sizes in torch's order."""
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
