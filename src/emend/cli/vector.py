"""`emend vector`: what training changed, as a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import percent, print_json
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend vector --base base/ --tuned tuned/ --output_path vector/",
    "emend vector --base base/ --tuned tuned/ --rank 16 --output_path patch/",
    "emend vector --base smollm2-135m --adapter adapter/ --output_path patch/",
)


_Base = Annotated[
    str,
    flag(
        "The model before training: smollm2-135m, lab/gptneo, a directory or a .gguf file.",
        metavar="MODEL",
    ),
]
_Adapter = Annotated[
    Path | None,
    flag("Or a LoRA adapter for the base: a PEFT folder, or a .gguf file.", metavar="PATH"),
]
_Rank = Annotated[
    int | None,
    flag("Write a patch of this rank for each linear layer, with its error.", min=1),
]
_Tolerance = Annotated[
    float | None,
    flag("Write a patch of the smallest rank within this relative error.", metavar="SHARE"),
]
_Dtype = Annotated[str, flag("Of a dense vector: float32, bfloat16 or float16.", metavar="DTYPE")]


def command(
    *,
    base: _Base,
    output_path: Annotated[Path, flag("Where to write the vector.", metavar="DIRECTORY")],
    tuned: Annotated[str | None, flag("The model after training.", metavar="MODEL")] = None,
    adapter: _Adapter = None,
    rank: _Rank = None,
    tolerance: _Tolerance = None,
    dtype: _Dtype = "float32",
    accept_license: _options.AcceptLicense = False,
    json: _options.Json = False,
) -> None:
    """Take the vector from one checkpoint to another, or of a LoRA adapter.

    Checkpoints are read tensor by tensor, so that memory does not grow with the model. The vector
    is dense, or with --rank or --tolerance a patch, which PEFT loads too.
    """
    if (tuned is None) == (adapter is None):
        raise InvalidInput("expected one of --tuned and --adapter: what the vector leads to")
    output_directory(output_path)
    from emend.arithmetic import vector

    made = vector(
        base,
        tuned,
        output_path,
        adapter=adapter,
        rank=rank,
        tolerance=tolerance,
        dtype=cast("Any", dtype),
        accept_license=accept_license,
    )
    if json:
        print_json({"base": base, "tuned": tuned, "adapter": adapter, **made.to_dict()})
        return
    kind = "dense vector" if made.kind == "dense" else "patch"
    typer.echo(f"{kind} of {made.tensors} tensors, norm {made.norm:.4g}, saved to {output_path}")
    tell_error(made.error, made.left_out, made.kind == "patch")


def tell_error(error: float, left_out: tuple[str, ...], is_patch: bool) -> None:
    """Print the error of a patch, and what it leaves out."""
    if is_patch:
        typer.echo(f"relative error of the patch: {percent(error)} of the vector's norm")
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        why = "no weights of linear layers" if is_patch else "no floating-point numbers"
        typer.echo(f"left out, {why}: {len(left_out)} tensors that differ ({shown})")
