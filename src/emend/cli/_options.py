"""Flags that several subcommands share, and the groups of flags that become one argument."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import OptionInfo

from emend._validate import shown
from emend.edits import Edit, edit_from_record
from emend.errors import InvalidInput


def flag(help: str, **more: Any) -> Any:
    """Declare a flag that is named as its parameter: ``batch_size`` gives --batch_size.

    Args:
        help: Its text on the help page.
        more: Other arguments of `typer.Option`.
    """
    return typer.Option(help=help, **more)


def examples(*lines: str) -> str:
    """Write the end of a help page; the leading mark keeps the lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def typer_command(command: Callable[..., Any]) -> Callable[..., Any]:
    """Prepare a command for typer.

    Each flag is named as its parameter is (typer would write dashes). A parameter whose type is a
    dataclass, such as `Loading`, is replaced by that dataclass's flags, in its place.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for one in inspect.signature(command, eval_str=True).parameters.values():
        group: Any = one.annotation
        if is_dataclass(group):
            groups[one.name] = group
            inner = inspect.signature(groups[one.name], eval_str=True).parameters.values()
            parameters.extend(map(_named, inner))
        else:
            parameters.append(_named(one))

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return command(**given)

    parameters = [one.replace(kind=one.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _named(parameter: inspect.Parameter) -> inspect.Parameter:
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    kind, option = get_args(parameter.annotation)[:2]
    if not isinstance(option, OptionInfo) or option.default is not ...:
        return parameter  # an argument, or a flag that is named where it is declared
    option = copy.copy(option)
    option.param_decls = (f"--{parameter.name}",)
    return parameter.replace(annotation=Annotated[kind, option])


Text = str | None

Model = Annotated[
    str,
    flag(
        "smollm2-135m (`emend models` lists more), lab/gptneo, lab/qwen3, a directory, "
        "a .gguf file, or a name on the hub.",
        metavar="MODEL",
    ),
]
AdapterModel = Annotated[
    Text,
    flag(
        "The model that a LoRA adapter is for, to check it; a .gguf adapter needs it.",
        metavar="MODEL",
    ),
]
Method = Annotated[str, flag("An editor; `emend methods` lists them.", metavar="NAME")]
Edits = Annotated[
    Path | None,
    flag(
        "Edits: JSON lines, JSON, YAML, CSV, a published form (`emend datasets`), or -.",
        metavar="FILE",
    ),
]
OutputPath = Annotated[Path | None, flag("The directory to write to.", metavar="DIRECTORY")]
PatchPath = Annotated[Path, flag("Where to save the patch.", metavar="DIRECTORY")]
OutputFile = Annotated[
    Path | None, flag("A file to write: .html, .png, .svg or .json.", metavar="FILE")
]
AcceptLicense = Annotated[
    bool, flag("Accept the terms of a packaged model that has some (gemma3-270m).")
]
BatchSize = Annotated[int, flag("How many prompts are run at once.", min=1)]
Limit = Annotated[int | None, flag("Take at most this many edits.", min=1)]
Seed = Annotated[int, flag("Seed of everything that is drawn at random.")]
Json = Annotated[bool, flag("Print exactly one JSON object and nothing else.")]
LogSamples = Annotated[
    bool, flag("Write to --output_path how each prompt was answered (traces.jsonl: of mello).")
]
Strict = Annotated[bool, flag("Exit with status 1 where an edit did not take.")]
Probes = Annotated[
    str,
    flag(
        "What else changed is measured with: auto (the edits' own probes, and made ones for "
        "edits without), given (their own alone) or none.",
        metavar="WORD",
    ),
]
LedgerFile = Annotated[Path, typer.Argument(help="The file of the ledger.", metavar="LEDGER")]
Author = Annotated[Text, flag("Who does it; by default your user name.")]
Reason = Annotated[str, flag("Why, for those who read the history.")]
Supersede = Annotated[
    bool, flag("Of edits that want different things, let the newer win; else refused.")
]


@dataclass(frozen=True)
class Loading:
    """The flags that say how --model is loaded."""

    dtype: Annotated[
        Text, flag("Of the weights: float32, bfloat16 or float16.", metavar="DTYPE")
    ] = None
    device: Annotated[
        Text, flag("Where the model goes: cpu (the default), cuda, cuda:1.", metavar="NAME")
    ] = None
    device_map: Annotated[
        Text, flag("Instead of --device: auto spreads the model.", metavar="WORD")
    ] = None
    load_in_4bit: Annotated[bool, flag("Quantise the model to 4 bits (bitsandbytes).")] = False
    load_in_8bit: Annotated[bool, flag("Quantise the model to 8 bits (bitsandbytes).")] = False
    start_token: Annotated[
        Text,
        flag(
            "The token in front of every text where the tokenizer adds nothing: auto (the "
            "default) finds it, none leaves it out, any other text is taken.",
            metavar="TEXT",
        ),
    ] = None
    base_url: Annotated[
        Text,
        flag(
            "Of --model openai:NAME (or openai-chat:NAME): the endpoint's address.", metavar="URL"
        ),
    ] = None
    accept_license: AcceptLicense = False

    def load(self, model: str) -> tuple[Any, Any]:
        """Load a model and its tokenizer as the flags say."""
        from emend import api

        return api.load(model, **{name: value for name, value in vars(self).items() if value})


@dataclass(frozen=True)
class Settings:
    """The flags that give a method its settings."""

    config: Annotated[
        list[str] | None,
        flag(
            "Settings of the method: a YAML or JSON file, or name=value. May be repeated.",
            metavar="FILE",
        ),
    ] = None
    set: Annotated[
        list[str] | None,
        flag(
            "One setting of the method, over those of --config. May be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None

    def of(self, method: str, config_type: type | None = None, **flags: object) -> dict[str, Any]:
        """Check the settings that were given for a method.

        Args:
            method: Its name.
            config_type: Its dataclass of settings; by default that of the registered method.
            flags: Settings that have a flag of their own; None where it is not given.

        Raises:
            UnknownName: There is no such method or setting.
            InvalidInput: A value is of another type, or outside its range.
        """
        from emend.cli._settings import settings_for

        if config_type is None:
            from emend import methods

            config_type = methods.registry().get(method).config_type
        own = [f"{name}={value}" for name, value in flags.items() if value is not None]
        return settings_for(method, config_type, self.config, [*(self.set or []), *own])


@dataclass(frozen=True)
class OneEdit:
    """The flags that describe a single edit."""

    prompt: Annotated[Text, flag("A single edit: its prompt.")] = None
    subject: Annotated[Text, flag("... its subject.")] = None
    target: Annotated[Text, flag("... what the model must generate.")] = None
    language: Annotated[Text, flag("... its language, as zh or pt-BR.", metavar="TAG")] = None
    translation: Annotated[
        list[str] | None,
        flag(
            "... the same edit in another language, made and taken out with it: a JSON object "
            "with language, prompt, subject and target. May be repeated.",
            metavar="JSON",
        ),
    ] = None

    def edit(self, file: Path | None, otherwise: str, **more: str | None) -> Edit | None:
        """Make the edit; None where no flag describes one.

        Args:
            file: What --edits names, which must then be alone.
            otherwise: What may be given in place of the flags, for the message; "" if an edit is
                described elsewhere when no flag is given.
            more: Other fields of the edit, each by a flag of its own.

        Raises:
            InvalidInput: Both a file and a flag are given, or a flag is missing or not JSON.
            BrokenFile: A field cannot be used.
        """
        texts = {**vars(self), **more, "translation": self.translation or None}
        given = {name: value for name, value in texts.items() if value is not None}
        if file is not None and given:
            raise InvalidInput(
                f"both --edits and --{next(iter(given))} are given, expected one kind"
            )
        if file is not None or not (given or otherwise):
            return None
        missing = [f"--{name}" for name in ("prompt", "subject", "target") if name not in given]
        if missing:
            rest = "" if given else otherwise
            raise InvalidInput(f"no edit is given, expected {rest}{', '.join(missing)}: add them")
        parts = [_translation(text) for text in given.pop("translation", ())]
        return edit_from_record({**given, **({"translations": parts} if parts else {})})


def _translation(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidInput(
            f"--translation is {shown(text)}, expected a JSON object with language, prompt, "
            "subject and target: put it in single quotes"
        ) from None
