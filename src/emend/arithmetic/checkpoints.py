"""Checkpoints as directories of named tensors, read one at a time; and what may differ of two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from emend._tensors import Digester, Digests, combined
from emend.arithmetic.tensor_files import Place, read_header
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.models.loading import checkpoint_source
from emend.models.saving import quiet

INDEX = ".safetensors.index.json"
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""Names of heads that may be tied to the embedding."""

Tensors = tuple[dict[str, Place], tuple[tuple[str, ...], ...]]
"""Places of tensors by name, and their names file by file."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a directory, in one file or in shards with an index.

    Attributes:
        name: What it was opened by.
        directory: The directory.
        places: Where each tensor is.
        shards: The names of the tensors, file by file.
        config: What config.json holds; empty where there is none.
    """

    name: str
    directory: Path
    places: Mapping[str, Place]
    shards: tuple[tuple[str, ...], ...]
    config: Mapping[str, Any]

    @property
    def floats(self) -> list[str]:
        """Names of the tensors of floating-point numbers, which a vector has, in the files' order.

        Numbers of 8 bits do not count: they are quantised, and mean nothing without their scales.
        """
        return [name for names in self.shards for name in names if _is_float(self.places[name])]

    @property
    def others(self) -> tuple[str, ...]:
        """Names of all other tensors, which are left as the base has them."""
        return tuple(name for name, place in self.places.items() if not _is_float(place))

    @property
    def is_tied(self) -> bool:
        """Whether the head shares the embedding's tensor, by its configuration."""
        return bool(self.config.get("tie_word_embeddings"))


def _is_float(place: Place) -> bool:
    return place.dtype.is_floating_point and place.dtype.itemsize > 1


def open_checkpoint(name: str | Path, *, accept_license: bool = False) -> Checkpoint:
    """Open a model by what `emend.load` takes, except a name on the hub.

    Raises:
        MissingFile: There is no such model, or a shard that its index names is missing.
        BrokenFile: A file is cut short or not of its format.
    """
    source = Path(checkpoint_source(str(name), accept_license))
    if not source.is_dir():
        raise MissingFile(
            f"{name} is not a directory here, expected a checkpoint whose files can be read: "
            f"download it first (hf download {name}) and give its directory"
        )
    return _opened(str(name), source)


def open_tensors(directory: Path, stem: str) -> Tensors:
    """Return the tensors of ``stem.safetensors``, or of the shards that its index names.

    Returns:
        Their places by name, and their names file by file.

    Raises:
        MissingFile: There is no such file, or a shard is missing.
        BrokenFile: A file is cut short or not of its format, or a shard lacks a tensor.
    """
    index = directory / f"{stem}{INDEX}"
    if not index.is_file():
        path = directory / f"{stem}.safetensors"
        files = [path] if path.is_file() else sorted(directory.glob("*.safetensors"))
        if len(files) != 1:
            raise MissingFile(
                f"{directory} holds {len(files)} *.safetensors and no {index.name}, expected one "
                "file or shards with an index: save the model with save_pretrained"
            )
        places = read_header(files[0])
        return places, (tuple(places),)
    try:
        listed = cast("dict[str, str]", json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        names = list(dict.fromkeys(listed.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BrokenFile(f"{index} is not an index of shards: save or copy it again") from None
    return _of_shards(directory, listed, sorted(names))


def _of_shards(directory: Path, listed: Mapping[str, str], files: Iterable[str]) -> Tensors:
    places: dict[str, Place] = {}
    shards: list[tuple[str, ...]] = []
    for file in files:
        path = directory / Path(file).name
        if not path.is_file():
            raise MissingFile(f"{directory} lacks the shard {file} of its index: copy it there")
        found = read_header(path)
        places |= {name: place for name, place in found.items() if listed.get(name) == file}
        shards.append(tuple(name for name in found if listed.get(name) == file))
    missing = [name for name in listed if name not in places]
    if missing:
        raise BrokenFile(
            f"{directory} lacks tensor {missing[0]} in {listed[missing[0]]}, where its index has "
            "it: copy or save it again"
        )
    return places, tuple(shards)


def _opened(name: str, source: Path) -> Checkpoint:
    places, shards = open_tensors(source, "model")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if config.get("tie_word_embeddings") is True:
        # Some checkpoints repeat the embedding as the head, which no loader reads.
        gone = {one for one in HEADS if one in places and len(places) > 1}
        places = {one: place for one, place in places.items() if one not in gone}
        shards = tuple(tuple(one for one in names if one not in gone) for names in shards)
    return Checkpoint(name, source, places, shards, config)


def check_alike(base: Checkpoint, tuned: Checkpoint) -> None:
    """Refuse two checkpoints that are not of one architecture, size and vocabulary.

    Raises:
        InvalidInput: With the name of the first tensor that differs.
    """
    _check_names(base, tuned)
    for name, place in base.places.items():
        other = tuned.places[name]
        if place.shape != other.shape:
            raise InvalidInput(_shapes(name, base, tuned))
        if _is_float(place) != _is_float(other):
            raise InvalidInput(
                f"{name} is of {place.dtype} in {base.name} and of {other.dtype} in {tuned.name}, "
                "expected floating-point numbers in both: save both without quantisation"
            )
    _check_vocabulary(base, tuned)


def _check_names(base: Checkpoint, tuned: Checkpoint) -> None:
    pairs = ((base, tuned), (tuned, base))
    for has, lacks in pairs:
        missing = [name for name in has.places if name not in lacks.places]
        if not missing:
            continue
        name = missing[0]
        if name in HEADS:
            raise InvalidInput(
                f"{name} is a tensor of its own in {has.name} and tied to the embedding in "
                f"{lacks.name}, expected the same in both: save both with one value of "
                "tie_word_embeddings"
            )
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InvalidInput(
            f"{lacks.name} lacks the tensor {name}{more} of {has.name}, expected equal names: give "
            "two checkpoints of one architecture and size"
        )


def _shapes(name: str, base: Checkpoint, tuned: Checkpoint) -> str:
    one, other = base.places[name].shape, tuned.places[name].shape
    said = f"{name} has shape {list(one)} in {base.name} and {list(other)} in {tuned.name}"
    sizes = base.config.get("vocab_size"), tuned.config.get("vocab_size")
    if one[1:] == other[1:] and (one[0], other[0]) == sizes:
        return (
            f"{said}: they have different vocabularies, expected one; resize the embedding of the "
            "tuned model to the base's (resize_token_embeddings)"
        )
    return f"{said}, expected equal shapes: give two checkpoints of one architecture and size"


def _check_vocabulary(base: Checkpoint, tuned: Checkpoint) -> None:
    """Refuse tokenizers that give one token different rows of the embedding."""
    files = [one.directory / "tokenizer.json" for one in (base, tuned)]
    if not all(file.is_file() for file in files):
        return
    texts = [file.read_bytes() for file in files]
    if texts[0] == texts[1]:
        return
    try:
        ids = [_vocabulary(json.loads(text)) for text in texts]
    except (ValueError, KeyError, TypeError):
        return  # no vocabulary to compare: the shapes agree
    shared = ids[0].keys() & ids[1].keys()
    different = min((token for token in shared if ids[0][token] != ids[1][token]), default=None)
    if different is not None or len(shared) < min(map(len, ids)):
        token = different or min(ids[0].keys() ^ ids[1].keys())
        raise InvalidInput(
            f"the tokenizers of {base.name} and {tuned.name} have different vocabularies: token "
            f"{token!r} is {ids[0].get(token)} in one and {ids[1].get(token)} in the other, "
            "expected equal numbers: give two checkpoints with one tokenizer"
        )


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Return the number of each token; a tuned model may have more added ones."""
    found = tokenizer["model"]["vocab"]
    if isinstance(found, list):  # of a unigram model: pairs of token and score
        found = {pair[0]: number for number, pair in enumerate(found)}
    return cast("dict[str, int]", found)


def identity(checkpoint: Checkpoint, digests: Mapping[str, Digests]) -> dict[str, Any]:
    """Describe a checkpoint, as `patches.describe_base` does, without loading transformers.

    Args:
        checkpoint: The checkpoint.
        digests: Of every tensor; their hash is the loaded model's `weights_hash`.
    """
    architectures = checkpoint.config.get("architectures") or [""]
    return {
        "name": checkpoint.name,
        "hash": combined(digests.items()).rounded,
        "architecture": str(architectures[0]),
        "model_type": str(checkpoint.config.get("model_type") or ""),
    }


def hashed(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, Digests]:
    """Read and hash some tensors of a checkpoint, a part at a time."""
    found: dict[str, Digests] = {}
    for name in names:
        place = checkpoint.places[name]
        digester = Digester(place.dtype, place.shape)
        for chunk in place.chunks():
            digester.update(chunk)
        found[name] = digester.digests()
    return found


def skeleton(checkpoint: Checkpoint) -> Any:
    """Return the model of a checkpoint on the meta device: its modules, without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    with quiet(), torch.device("meta"):
        config = AutoConfig.from_pretrained(checkpoint.directory)
        model = loader.from_config(config)
    model.config._name_or_path = checkpoint.name
    return model.eval()
