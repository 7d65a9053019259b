"""`emend export`: a patch in the form of an engine, with the commands that serve it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from emend.cli import _options
from emend.cli._given import output_directory, read_patch_early
from emend.cli._options import flag
from emend.cli._output import print_json
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.patches import Export, Patch

EXAMPLES = _options.examples(
    "emend export --patch patch/ --format gguf --output_path patch.gguf",
    "emend export --patch patch/ --format peft --output_path adapters/ --base_model Qwen/Qwen3-8B",
    "emend export --patch patch/ --format merged --output_path checkpoint/",
    "emend export --patch patch/ --format merged-gguf --quantization q8_0 --output_path m.gguf",
)


_Format = Annotated[
    str,
    flag(
        "peft (a folder for PEFT, vLLM, SGLang), gguf (an adapter for llama.cpp), merged "
        "(a Hugging Face checkpoint) or merged-gguf (a whole model for llama.cpp, Ollama).",
        metavar="WORD",
    ),
]
_OutputPath = Annotated[Path, flag("A directory, or a file named .gguf, to write.", metavar="PATH")]
_Model = Annotated[
    str | None,
    flag(
        "The model that is merged into, or that a patch which names no architecture is "
        "for; by default the one that the patch was made for.",
        metavar="MODEL",
    ),
]
_BaseModel = Annotated[
    str | None, flag("Of peft: what the engine's --model will say of the base.", metavar="NAME")
]
_BaseGguf = Annotated[
    Path | None,
    flag(
        "The base in GGUF: checked against the adapter, and what merged-gguf starts from.",
        metavar="FILE",
    ),
]
_Quantization = Annotated[
    str,
    flag("Of merged-gguf: how the changed tensors are stored: f32, f16 or q8_0.", metavar="TYPE"),
]


def command(
    *,
    patch: Annotated[Path, flag("A saved patch.", metavar="DIRECTORY")],
    format: _Format,
    output_path: _OutputPath,
    model: _Model = None,
    base_model: _BaseModel = None,
    base_gguf: _BaseGguf = None,
    quantization: _Quantization = "f16",
    allow_other_base: Annotated[bool, flag("Merge into a model with other weights too.")] = False,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Write a patch for an engine, and print the commands that serve it."""
    from emend.patches import FORMATS

    if format not in FORMATS:
        raise InvalidInput(f"--format is {format!r}, expected one of {', '.join(FORMATS)}")
    found, loaded = _read(patch, model, format, output_path, loading)
    made = found.export(
        output_path,
        cast("Any", format),
        base_model=base_model,
        base_gguf=base_gguf,
        quantization=cast("Any", quantization),
        allow_other_base=allow_other_base,
        **loaded,
    )
    print_json({"patch": patch, **made.to_dict()}) if json else _tell(made)


def _read(
    path: Path, model: str | None, format: str, output_path: Path, loading: _options.Loading
) -> tuple[Patch, dict[str, Any]]:
    """Read the patch, and the model where it is given or needed."""
    from emend.patches import WeightPatch, load_patch

    early = read_patch_early(path)
    merges = format == "merged" and isinstance(early, WeightPatch | None)
    if early is not None and model is None and not merges:
        return early, {}
    if merges:
        output_directory(output_path)
    name = model or str((early.base if early else {}).get("name") or "")
    if not name:
        raise InvalidInput(f"{path} names no base, expected the model that it is for: give --model")

    network, tokenizer = loading.load(name)
    return early or load_patch(path, network), {"model": network, "tokenizer": tokenizer}


def _tell(made: Export) -> None:
    typer.echo(f"{made.format} saved to {made.path}")
    for note in made.notes:
        typer.echo(f"note: {note}")
    for one in made.commands:
        typer.echo(f"\n{one.engine}:\n{one.text}")
