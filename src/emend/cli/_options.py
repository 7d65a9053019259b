"""Flags that several subcommands share, so that each means and says the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model", help="lab/gptneo, lab/qwen3, a directory, or a name on the hub.", metavar="MODEL"
    ),
]
Method = Annotated[
    str, typer.Option("--method", help="An editor; `emend methods` lists them.", metavar="NAME")
]
Edits = Annotated[
    Path | None,
    typer.Option("--edits", help="A file of edits: .jsonl, .json or .yaml.", metavar="FILE"),
]
OutputPath = Annotated[
    Path | None,
    typer.Option("--output_path", help="The directory to write to.", metavar="DIRECTORY"),
]
BatchSize = Annotated[
    int, typer.Option("--batch_size", help="How many prompts are run at once.", min=1)
]
Limit = Annotated[int | None, typer.Option("--limit", help="Take at most this many edits.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="What is drawn, is drawn by this.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object and nothing else.")
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        help="Settings of the method: a YAML or JSON file, or name=value. May be repeated.",
        metavar="FILE",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="One setting of the method, over those of --config. May be repeated.",
        metavar="NAME=VALUE",
    ),
]


def examples(*lines: str) -> str:
    """The end of a help page; the leading mark keeps the lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
