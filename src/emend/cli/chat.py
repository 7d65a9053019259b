"""`emend chat`: ask the base and the edited model side by side, and edit between questions."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._output import print_json
from emend.cli._patches import read_early
from emend.cli._settings import settings_for
from emend.errors import InvalidInput

NAME = "chat"
EXAMPLES = _options.examples(
    "emend chat --model smollm2-135m",
    "emend chat --model smollm2-135m --patch patch/",
    'emend chat --model smollm2-135m --patch patch/ --prompt "Where is the Eiffel Tower?" --json',
    "emend chat --model lab/gptneo --form completion",
    "",
    "Inside:",
    '  /edit "The Eiffel Tower is located in the city of" -> "Rome"',
    "  /revert   /why   /save DIRECTORY   /form chat|completion   /help   /quit",
)


class FormChoice(str, Enum):
    """How a question is put to the model."""

    auto = "auto"
    chat = "chat"
    completion = "completion"


@_options.loads_model
def command(
    model: _options.Model,
    patch: Annotated[
        Path | None,
        typer.Option(
            "--patch",
            help="A saved patch of any kind, or a LoRA adapter of PEFT or in GGUF; without it "
            "nothing is edited yet.",
            metavar="PATH",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="Ask one question and leave.", metavar="TEXT"),
    ] = None,
    form: Annotated[
        FormChoice,
        typer.Option(
            "--form",
            help="How questions are put: in the model's chat template, or as texts to continue; "
            "auto takes the template where there is one.",
        ),
    ] = FormChoice.auto,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", help="The longest answer, in tokens.", min=1)
    ] = 64,
    method: _options.Method = "rome",
    config: _options.Config = None,
    set: _options.Set = None,
    probes: _options.Probes = "auto",
    allow_other_base: Annotated[
        bool,
        typer.Option(
            "--allow_other_base", help="Take a patch that was made for other weights too."
        ),
    ] = False,
    json: _options.Json = False,
    *,
    loading: _options.Loading,
) -> None:
    """Ask the base and the edited model the same question side by side.

    Each question is answered on its own. Facts are edited inside, typed as sentences; --method,
    --config, --set and --probes are those of `emend edit`. Ctrl-C stops an answer, Ctrl-D leaves.
    Questions may come from a pipe, a line each; an error then ends it.
    """
    if json and prompt is None:
        raise InvalidInput("--json is given without --prompt, expected one question: add it")
    _options.check_probes(probes)
    from emend import api, methods, patches
    from emend.chat import Session
    from emend.cli._chat_loop import Loop
    from emend.cli._chat_screen import Screen

    chosen: Any = methods.registry().get(method)
    settings = settings_for(method, chosen.config_type, config, set or [])
    given = None if patch is None else read_early(patch)
    network, tokenizer = api.load(model, **loading)
    if patch is not None and given is None:
        given = patches.load_patch(patch, network)
    session = Session(
        network,
        tokenizer,
        given,
        form=None if form is FormChoice.auto else form.value,
        method=method,
        settings=settings,
        allow_other_base=allow_other_base,
    )
    if prompt is None:
        Loop(session, Screen(max_new_tokens), model, probes).run()
    elif json:
        answer = session.ask(prompt, max_new_tokens=max_new_tokens)
        print_json({"model": model, "patch": patch, **answer.to_dict()})
    else:
        Screen(max_new_tokens).ask(session, prompt)
