"""`emend lens`: what a model would say after each block."""

from __future__ import annotations

from typing import Annotated

import typer

from emend.cli import _options
from emend.cli._given import output_file
from emend.cli._options import flag
from emend.cli._output import print_json, print_rich

EXAMPLES = _options.examples(
    'emend lens --model lab/gptneo --prompt "NAME was born in"',
    'emend lens --model gpt2 --prompt "The capital of France is" --answer Paris \\',
    "      --output_path lens.html",
)


def command(
    *,
    model: _options.Model,
    prompt: Annotated[str, flag("A text to be continued.")],
    answer: Annotated[
        str | None, flag("Show its rank and probability; by default what the model generates.")
    ] = None,
    top: Annotated[int, flag("How many of the most probable tokens are shown.", min=1)] = 5,
    output_path: _options.OutputFile = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Show what each block's output says, read through the final norm and the head (logit lens).

    The table is about the last token of the prompt; with --output_path, all tokens are written.
    Of an answer of several tokens the first is asked about.
    """
    output_file(output_path)
    from emend import locate, report

    network, tokenizer = loading.load(model)
    found = locate.lens(network, tokenizer, prompt, answer, top=top)
    if output_path:
        report.write(found, output_path)
    if json:
        print_json({"model": model, **found.to_dict()})
        return
    print_rich(report.terminal(found))
    if output_path:
        typer.echo(f"written to {output_path}")
