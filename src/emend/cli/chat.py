"""`emend chat`: ask the base and the edited model side by side, and edit between questions."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from emend.cli import _options
from emend.cli._given import check_probes, read_patch_early
from emend.cli._options import flag
from emend.cli._output import print_json
from emend.errors import InvalidInput

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


_Patch = Annotated[
    Path | None,
    flag(
        "A saved patch of any kind, or a LoRA adapter of PEFT or in GGUF; without it "
        "nothing is edited yet.",
        metavar="PATH",
    ),
]
_Form = Annotated[
    FormChoice,
    flag(
        "How questions are put: in the model's chat template, or as texts to continue; "
        "auto takes the template where there is one."
    ),
]
_AllowOtherBase = Annotated[bool, flag("Take a patch that was made for other weights too.")]


def command(
    *,
    model: _options.Model,
    patch: _Patch = None,
    prompt: Annotated[str | None, flag("Ask one question and leave.", metavar="TEXT")] = None,
    form: _Form = FormChoice.auto,
    max_new_tokens: Annotated[int, flag("The longest answer, in tokens.", min=1)] = 64,
    method: _options.Method = "rome",
    settings: _options.Settings,
    probes: _options.Probes = "auto",
    allow_other_base: _AllowOtherBase = False,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Ask the base and the edited model the same question side by side.

    Each question is answered on its own. Facts are edited inside, typed as sentences; --method,
    --config, --set and --probes are those of `emend edit`. Ctrl-C stops an answer, Ctrl-D leaves.
    Questions may come from a pipe, a line each; an error then ends it.
    """
    if json and prompt is None:
        raise InvalidInput("--json is given without --prompt, expected one question: add it")
    check_probes(probes)
    from emend import patches
    from emend.chat import Session
    from emend.cli._chat import Loop, Screen

    chosen = settings.of(method)
    given = None if patch is None else read_patch_early(patch)
    network, tokenizer = loading.load(model)
    if patch is not None and given is None:
        given = patches.load_patch(patch, network)
    session = Session(
        network,
        tokenizer,
        given,
        form=None if form is FormChoice.auto else form.value,
        method=method,
        settings=chosen,
        allow_other_base=allow_other_base,
    )
    if prompt is None:
        Loop(session, Screen(max_new_tokens), model, probes).run()
    elif json:
        answer = session.ask(prompt, max_new_tokens=max_new_tokens)
        print_json({"model": model, "patch": patch, **answer.to_dict()})
    else:
        Screen(max_new_tokens).ask(session, prompt)
