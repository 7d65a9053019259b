"""Export a weight patch in the form of an engine, with the commands that serve it there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from emend._validate import choice_fault, refuse
from emend.errors import InvalidInput, MissingFile
from emend.models.cached import packaged_gguf
from emend.models.gguf_header import Header, read_header
from emend.models.gguf_names import GgufNames, gguf_names
from emend.models.packaged import MODELS
from emend.patches import _engines
from emend.patches._base import describe_base
from emend.patches._engines import Command, Served
from emend.patches._gguf_adapter import write_gguf_adapter
from emend.patches._gguf_merged import Quantization, write_merged_gguf
from emend.patches._save import ADAPTER_CONFIG, ADAPTER_TENSORS, adapter_files, write_adapter_files

if TYPE_CHECKING:
    from torch import nn

    from emend.patches._weight import WeightPatch

Format = Literal["peft", "gguf", "merged", "merged-gguf"]
"""What a patch can be exported as."""

FORMATS = get_args(Format)
LOST = 0.5
"""Share of a change's norm above which what a merged type loses is noted."""


@dataclass(frozen=True)
class Export:
    """What an export wrote, and how it is served.

    Attributes:
        path: The file or directory that was written.
        format: One of `FORMATS`.
        commands: The next commands, engine by engine.
        notes: What to know before them: limits that do not hold, rules, what rounding costs.
        rounding: Of each tensor of a merged GGUF file that was changed, what its type loses:
            ``||stored - (W + delta)|| / ||delta||`` (Frobenius).
    """

    path: Path
    format: Format
    commands: tuple[Command, ...]
    notes: tuple[str, ...] = ()
    rounding: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "path": str(self.path),
            "format": self.format,
            "commands": [one._asdict() for one in self.commands],
            "notes": list(self.notes),
            "rounding": dict(self.rounding),
        }


@dataclass(frozen=True)
class ExportOptions:
    """How `WeightPatch.export` writes; see there."""

    format: Format | None = None
    model: nn.Module | None = None
    tokenizer: Any = None
    base_model: str | None = None
    base_gguf: str | Path | None = None
    quantization: Quantization = "f16"
    allow_other_base: bool = False


def export(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    """See `WeightPatch.export`."""
    chosen = options.format or ("gguf" if path.suffix == ".gguf" else "peft")
    refuse("format", choice_fault(chosen, FORMATS))
    if not any(factor.rank for factor in patch.factors.values()):
        raise InvalidInput("the patch changes nothing, expected a change to export: serve the base")
    return _WRITERS[chosen](patch, path, options)


def _peft(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    """Write a PEFT folder named by its content, since vLLM keeps what it computed by the path."""
    if options.base_model:
        patch = replace(patch, base={**patch.base, "name": options.base_model})
    files, rank = adapter_files(patch)
    digest = hashlib.sha256(files[ADAPTER_CONFIG] + files[ADAPTER_TENSORS]).hexdigest()
    folder = path / f"patch-{digest[:16]}"
    write_adapter_files(files, folder)
    served = Served(patch, folder, base=str(patch.base.get("name") or ""))
    return Export(folder, "peft", *_engines.peft(served, rank))


def _gguf(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    _refuse_suffix(path)
    base = _given_base(options)
    names = _names(patch, base, options.model)
    write_gguf_adapter(patch, path, names, base and base[1])
    served = Served(patch, path, base=_base_file(patch, options))
    return Export(path, "gguf", *_engines.gguf_adapter(served))


def _merged(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    if options.model is None:
        raise InvalidInput(
            "format='merged' is given without a model, expected the one that the patch was made "
            "for: patch.export(path, format='merged', model=model, tokenizer=tokenizer)"
        )
    patch.save_merged(
        options.model, options.tokenizer, path, allow_other_base=options.allow_other_base
    )
    return Export(path, "merged", *_engines.merged(Served(patch, path, base=str(path))))


def _merged_gguf(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    _refuse_suffix(path)
    base = _given_base(options) or _known_base(patch)
    losses = write_merged_gguf(
        patch, path, _names(patch, base, options.model), base, options.quantization
    )
    commands, notes = _engines.merged_gguf(Served(patch, path, base=str(path)))
    worst = max(losses, key=losses.__getitem__)
    if losses[worst] > LOST:
        notes += (
            f"{options.quantization} loses {losses[worst]:.0%} of the change's norm in {worst}: "
            "take quantization='f16' or 'f32', or serve the adapter",
        )
    return Export(path, "merged-gguf", commands, notes, tuple(losses.items()))


_WRITERS = {"peft": _peft, "gguf": _gguf, "merged": _merged, "merged-gguf": _merged_gguf}


def _refuse_suffix(path: Path) -> None:
    if path.suffix.casefold() != ".gguf":
        raise InvalidInput(f"{path} has no suffix .gguf, expected a file to write: name it so")


def _names(
    patch: WeightPatch, base: tuple[Path, Header] | None, model: nn.Module | None
) -> GgufNames:
    """Name tensors by what the patch knows of its base, else by the model or the base's file."""
    if patch.base.get("model_type"):
        return gguf_names(patch.base)
    if model is not None:
        return gguf_names(describe_base(model))
    if base is None:
        raise InvalidInput(
            "the patch states no architecture of its base, expected one to name tensors by: pass "
            "base_gguf=BASE.gguf, or the model that it is for"
        )
    values, architecture = base[1].values, base[1].architecture
    heads = {
        "num_attention_heads": values.get(f"{architecture}.attention.head_count"),
        "num_key_value_heads": values.get(f"{architecture}.attention.head_count_kv"),
    }
    described = {"depth": values.get(f"{architecture}.block_count"), "config": heads}
    return gguf_names(described, architecture)


def _given_base(options: ExportOptions) -> tuple[Path, Header] | None:
    if options.base_gguf is None:
        return None
    return _read_base(Path(options.base_gguf))


def _read_base(path: Path) -> tuple[Path, Header]:
    if not path.is_file():
        raise MissingFile(f"there is no file {path}, expected the base model in GGUF: check it")
    return path, read_header(path)


def _known_base(patch: WeightPatch) -> tuple[Path, Header]:
    """Find the GGUF file that a patch's base came from."""
    name = str(patch.base.get("name") or "")
    if name in MODELS:
        path = packaged_gguf(MODELS[name])
        return path, read_header(path)
    if name.casefold().endswith(".gguf"):
        return _read_base(Path(name))
    raise InvalidInput(
        f"the base of the patch ({name or 'not named'}) did not come from a GGUF file, expected "
        "one to take tokenizer and other tensors from: pass base_gguf=BASE.gguf, made by "
        "llama.cpp's convert_hf_to_gguf.py, or take format='merged'"
    )


def _base_file(patch: WeightPatch, options: ExportOptions) -> str:
    """Name the base's GGUF file as a shell takes it; "" where it is not known."""
    name = str(patch.base.get("name") or "")
    if options.base_gguf is not None:
        return _engines.quoted(options.base_gguf)
    if name in MODELS:
        return f'"$(emend models gguf {name})"'
    return _engines.quoted(name) if name.casefold().endswith(".gguf") else ""
