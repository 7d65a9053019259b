"""Export a patch in the form of an engine: PEFT, GGUF, or merged weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from emend._validate import choice_fault, refuse
from emend.errors import InvalidInput, MissingFile
from emend.models.cached import packaged_gguf
from emend.models.gguf import Header, read_header
from emend.models.gguf_names import GgufNames, gguf_names
from emend.models.packaged import MODELS
from emend.patches import _serving
from emend.patches._base import describe_base
from emend.patches._files import ADAPTER_CONFIG, ADAPTER_TENSORS
from emend.patches._gguf import Quantization, write_gguf_adapter, write_merged_gguf
from emend.patches._merge import save_merged
from emend.patches._save import adapter_files, write_patch_files
from emend.patches._serving import Command, Served

if TYPE_CHECKING:
    from torch import nn

    from emend.patches._weight import WeightPatch

Format = Literal["peft", "gguf", "merged", "merged-gguf"]
"""Forms of an export. "peft": a folder ``patch-<hash>``, named by its content, for PEFT, vLLM and
SGLang. "gguf": an adapter that llama.cpp loads with the base, however that is quantised. "merged":
a Hugging Face checkpoint. "merged-gguf": the base's GGUF file with the changed tensors replaced."""

FORMATS = get_args(Format)
LOST = 0.5
"""Rounding error of a merged type, relative to the change's norm, above which a note is added."""


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        path: The file or directory that was written.
        format: One of `FORMATS`.
        commands: The commands that serve it, engine by engine.
        notes: What to know before serving it: constraints that are not met, rules, rounding.
        rounding: The rounding error of each changed tensor of a merged GGUF file:
            ``||stored - (W + delta)|| / ||delta||`` (Frobenius).
    """

    path: Path
    format: Format
    commands: tuple[Command, ...]
    notes: tuple[str, ...] = ()
    rounding: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {
            "path": str(self.path),
            "format": self.format,
            "commands": [one._asdict() for one in self.commands],
            "notes": list(self.notes),
            "rounding": dict(self.rounding),
        }


@dataclass(frozen=True)
class ExportOptions:
    """The options of :meth:`Patch.export`.

    Attributes:
        format: See `Format`; None for "gguf" if the path ends so, else "peft".
        model: For "merged": the model that the patch was made for. For the GGUF forms of a patch
            that states no architecture, such as another maker's adapter: its model.
        tokenizer: For "merged": the model's tokenizer, saved with it.
        base_model: For "peft": what the engine calls the base; None for the name in the patch.
            vLLM's resolver compares it with ``--model``.
        base_gguf: The base in GGUF. "merged-gguf" needs it, unless the model came from such a
            file; "gguf" then checks that the adapter fits it.
        quantization: For "merged-gguf": the type of the changed tensors, "f32", "f16" or
            "q8_0"; the others stay as they are.
        allow_other_base: For "merged": as for :meth:`WeightPatch.merge_into`.
    """

    format: Format | None = None
    model: nn.Module | None = None
    tokenizer: Any = None
    base_model: str | None = None
    base_gguf: str | Path | None = None
    quantization: Quantization = "f16"
    allow_other_base: bool = False


def export(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    """Write a weight patch; see `Patch.export`."""
    chosen = options.format or ("gguf" if path.suffix == ".gguf" else "peft")
    refuse("format", choice_fault(chosen, FORMATS))
    if not any(factor.rank for factor in patch.factors.values()):
        raise InvalidInput("the patch changes nothing, expected a change to export: serve the base")
    return _WRITERS[chosen](patch, path, options)


def _peft(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    """Write a PEFT folder named by its content, since vLLM caches results by the path."""
    if options.base_model:
        patch = replace(patch, base={**patch.base, "name": options.base_model})
    files, rank = adapter_files(patch)
    digest = hashlib.sha256(files[ADAPTER_CONFIG] + files[ADAPTER_TENSORS]).hexdigest()
    folder = path / f"patch-{digest[:16]}"
    write_patch_files(files, folder)
    served = Served(patch, folder, base=str(patch.base.get("name") or ""))
    return Export(folder, "peft", *_serving.peft(served, rank))


def _gguf(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    _check_suffix(path)
    base = None if options.base_gguf is None else _read_base(Path(options.base_gguf))
    names = _names(patch, base, options.model)
    write_gguf_adapter(patch, path, names, base and base[1])
    served = Served(patch, path, base=_base_argument(patch, options))
    return Export(path, "gguf", *_serving.gguf_adapter(served))


def _merged(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    if options.model is None:
        raise InvalidInput(
            "format='merged' is given without a model, expected the one that the patch was made "
            "for: patch.export(path, format='merged', model=model, tokenizer=tokenizer)"
        )
    other = options.allow_other_base
    save_merged(patch, options.model, options.tokenizer, path, allow_other_base=other)
    return Export(path, "merged", *_serving.merged(Served(patch, path, base=str(path))))


def _merged_gguf(patch: WeightPatch, path: Path, options: ExportOptions) -> Export:
    _check_suffix(path)
    given = options.base_gguf
    base = _packaged_base(patch) if given is None else _read_base(Path(given))
    names = _names(patch, base, options.model)
    losses = write_merged_gguf(patch, path, names, base, options.quantization)
    commands, notes = _serving.merged_gguf(Served(patch, path, base=str(path)))
    worst = max(losses, key=losses.__getitem__)
    if losses[worst] > LOST:
        notes += (
            f"{options.quantization} loses {losses[worst]:.0%} of the change's norm in {worst}: "
            "take quantization='f16' or 'f32', or serve the adapter",
        )
    return Export(path, "merged-gguf", commands, notes, tuple(losses.items()))


_WRITERS = {"peft": _peft, "gguf": _gguf, "merged": _merged, "merged-gguf": _merged_gguf}


def _check_suffix(path: Path) -> None:
    if path.suffix.casefold() != ".gguf":
        raise InvalidInput(f"{path} has no suffix .gguf, expected a file to write: name it so")


def _names(
    patch: WeightPatch, base: tuple[Path, Header] | None, model: nn.Module | None
) -> GgufNames:
    """Return the names of tensors, by the architecture of the patch, the model or the base."""
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


def _read_base(path: Path) -> tuple[Path, Header]:
    if not path.is_file():
        raise MissingFile(f"there is no file {path}, expected the base model in GGUF: check it")
    return path, read_header(path)


def _packaged_base(patch: WeightPatch) -> tuple[Path, Header]:
    """Find the GGUF file that a patch's base came from."""
    name = str(patch.base.get("name") or "")
    if name in MODELS:
        path = packaged_gguf(MODELS[name])
        return path, read_header(path)
    if _serving.is_gguf_name(name):
        return _read_base(Path(name))
    raise InvalidInput(
        f"the base of the patch ({name or 'not named'}) did not come from a GGUF file, expected "
        "one to take tokenizer and other tensors from: pass base_gguf=BASE.gguf, made by "
        "llama.cpp's convert_hf_to_gguf.py, or take format='merged'"
    )


def _base_argument(patch: WeightPatch, options: ExportOptions) -> str:
    """Return the base's GGUF file as an argument of a command; "" where it is not known."""
    name = str(patch.base.get("name") or "")
    if options.base_gguf is not None:
        return _serving.quoted(options.base_gguf)
    if name in MODELS:
        return f'"$(emend models gguf {name})"'
    return _serving.quoted(name) if _serving.is_gguf_name(name) else ""
