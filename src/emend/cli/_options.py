"""Flags that several subcommands share, so that each means and says the same everywhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emend._validate import choice_fault, refuse
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.patches import Outcome

PROBES = ("auto", "given", "none")  # emend.probes.SOURCES, which loads torch

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="smollm2-135m (`emend models` lists more), lab/gptneo, lab/qwen3, a directory, "
        "a .gguf file, or a name on the hub.",
        metavar="MODEL",
    ),
]
Method = Annotated[
    str, typer.Option("--method", help="An editor; `emend methods` lists them.", metavar="NAME")
]
Edits = Annotated[
    Path | None,
    typer.Option(
        "--edits",
        help="Edits: JSON lines, JSON, YAML, CSV, a published form (`emend datasets`), or -.",
        metavar="FILE",
    ),
]
Language = Annotated[
    str | None,
    typer.Option("--language", help="... its language, as zh or pt-BR.", metavar="TAG"),
]
Translation = Annotated[
    list[str] | None,
    typer.Option(
        "--translation",
        help="... the same edit in another language, made and taken out with it: a JSON object "
        "with language, prompt, subject and target. May be repeated.",
        metavar="JSON",
    ),
]
OutputPath = Annotated[
    Path | None,
    typer.Option("--output_path", help="The directory to write to.", metavar="DIRECTORY"),
]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept_license", help="Accept the terms of a packaged model that has some (gemma3-270m)."
    ),
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


LogSamples = Annotated[
    bool,
    typer.Option(
        "--log_samples",
        help="Write to --output_path how each prompt was answered (traces.jsonl: of mello).",
    ),
]


Strict = Annotated[
    bool,
    typer.Option("--strict", help="Exit with status 1 where an edit did not take."),
]


Probes = Annotated[
    str,
    typer.Option(
        "--probes",
        help="What else changed is measured with: auto (the edits' own probes, and made ones for "
        "edits without), given (their own alone) or none.",
        metavar="WORD",
    ),
]


def check_probes(probes: str) -> None:
    """Refuse a word that --probes does not know, before a model is loaded.

    Raises:
        InvalidInput: It is another one.
    """
    refuse("--probes", choice_fault(probes, PROBES))


def check_strict(strict: bool, outcomes: Sequence[Outcome]) -> None:
    """Exit with status 1 where --strict is given and an edit did not take."""
    if strict and not all(one.took for one in outcomes):
        raise typer.Exit(1)


def check_log(log_samples: bool, output_path: Path | None) -> None:
    """Refuse a log with nowhere to go.

    Raises:
        InvalidInput: It has no place.
    """
    if log_samples and output_path is None:
        raise InvalidInput("--log_samples is given without --output_path: say where to write them")


def keep_answers(model: Any, output_path: Path | None) -> None:
    """Let an endpoint keep what it answers under the output path, and go on from it."""
    from emend.models import Endpoint

    if output_path is not None and isinstance(model, Endpoint):
        model.keep_answers(output_path / "answers.jsonl")


Loading = dict[str, Any]
"""How --model is to be loaded: the arguments of `emend.load` that were given."""


def _loading_flags(
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype", help="Of the weights: float32, bfloat16 or float16.", metavar="DTYPE"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where the model goes: cpu (the default), cuda, cuda:1.",
            metavar="NAME",
        ),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            "--device_map", help="Instead of --device: auto spreads the model.", metavar="WORD"
        ),
    ] = None,
    load_in_4bit: Annotated[
        bool, typer.Option("--load_in_4bit", help="Quantise the model to 4 bits (bitsandbytes).")
    ] = False,
    load_in_8bit: Annotated[
        bool, typer.Option("--load_in_8bit", help="Quantise the model to 8 bits (bitsandbytes).")
    ] = False,
    start_token: Annotated[
        str | None,
        typer.Option(
            "--start_token",
            help="What stands in front of every text where the tokenizer adds nothing: auto (the "
            "default) finds it, none leaves it out, any other text is taken.",
            metavar="TEXT",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base_url",
            help="Of --model openai:NAME (or openai-chat:NAME): the endpoint's address.",
            metavar="URL",
        ),
    ] = None,
    accept_license: AcceptLicense = False,
) -> None:
    """The flags themselves; see `loads_model`."""


def loads_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags that say how --model is loaded, as its argument ``loading``.

    Its last flags are then --dtype, --device, --device_map, --load_in_4bit, --load_in_8bit,
    --start_token, --base_url and --accept_license; ``loading`` holds those that were given, to be
    passed on: ``api.load(model, **loading)``.
    """
    flags = inspect.signature(_loading_flags, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        loading: Loading = {name: given.pop(name) for name in flags}
        command(**given, loading={name: value for name, value in loading.items() if value})

    parameters = [one for one in own.parameters.values() if one.name != "loading"]
    parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in (*parameters, *flags.values())]
    run.__signature__ = own.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def examples(*lines: str) -> str:
    """The end of a help page; the leading mark keeps the lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
