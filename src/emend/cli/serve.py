"""`emend serve`: an OpenAI-compatible server whose facts are edited while it runs."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._engine import EngineFlags
from emend.cli._given import check_probes
from emend.cli._options import flag
from emend.errors import InvalidInput, MissingExtra, MissingFile

EXAMPLES = _options.examples(
    "emend serve --model smollm2-135m --ledger facts.db --token_file token.txt",
    "emend serve --model lab/gptneo --ledger facts.db --port 8001 --method rome",
    "emend serve --model smollm2-135m --ledger facts.db --patch polite=patches/polite",
    "emend serve --model smollm2-135m --ledger facts.db --engine llamacpp",
    "emend serve --model base.gguf --ledger facts.db --engine llamacpp --max_prompt_tokens 1024",
    "emend serve --model Qwen/Qwen3-0.6B --ledger facts.db --engine vllm \\",
    "  --engine_url http://127.0.0.1:8001 --adapter_dir adapters/",
    "",
    "curl http://127.0.0.1:8000/v1/edits -H 'Authorization: Bearer TOKEN' \\",
    "  -H 'Content-Type: application/json' -d '{\"statement\": "
    '"The {Eiffel Tower} is located in the city of -> Rome"}\'',
)

SHORTEST = 8
"""Characters that a token has at least."""


_Ledger = Annotated[
    Path, flag("The edits that are served; it is made where there is none.", metavar="FILE")
]
_ServedName = Annotated[
    str | None,
    flag("What requests call the base model; by default what --model says.", metavar="NAME"),
]
_TokenFile = Annotated[
    Path | None,
    flag(
        "A file with the token that writers must send; without it one is made for this run "
        "and printed.",
        metavar="FILE",
    ),
]
_Patch = Annotated[
    list[str] | None,
    flag("One more saved patch to serve, as NAME=DIRECTORY. May be repeated."),
]
_Drain = Annotated[float, flag("Seconds that requests under way may take after SIGTERM.", min=1)]
_LogPrompts = Annotated[bool, flag("Write prompts into the log, which by default holds none.")]


def command(
    *,
    model: _options.Model,
    ledger: _Ledger,
    engine: EngineFlags,
    host: Annotated[str, flag("The address to listen on.", metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, flag("The port to listen on.", min=0, max=65535)] = 8000,
    served_name: _ServedName = None,
    token_file: _TokenFile = None,
    method: _options.Method = "memit",
    settings: _options.Settings,
    probes: _options.Probes = "auto",
    patch: _Patch = None,
    max_body_bytes: Annotated[int, flag("The longest body of a request.", min=1)] = 1_000_000,
    max_waiting: Annotated[int, flag("How many texts may wait for the engine.", min=1)] = 256,
    edits_per_minute: Annotated[int, flag("Changes of the edits in any minute.", min=1)] = 60,
    drain: _Drain = 30.0,
    log_prompts: _LogPrompts = False,
    loading: _options.Loading,
) -> None:
    """Serve a model and its edits by OpenAI's interface, and edit facts while it runs.

    Requests name the base model, or NAME:LEDGER for the edited one (smollm2-135m:facts).
    POST /v1/edits makes an edit, DELETE /v1/edits/ID takes it out; every answer names the ledger's
    version in a header. The ledger may be changed by `emend ledger` meanwhile, which is followed.
    """
    check_probes(probes)
    token = _token(token_file)
    chosen = settings.of(method)
    try:
        from emend import server
    except ImportError as error:
        raise MissingExtra.of(error.name or "fastapi", "server", "serve") from error

    _begin_logs(log_prompts)
    given = _patches(patch or ())
    network, tokenizer, answering = engine.begin(model, loading)
    name = served_name or model
    options = server.EditorOptions(name, method, chosen, probes, given)
    editor = server.Editor(network, tokenizer, ledger, answering, options)
    limits = server.Limits(
        body_bytes=max_body_bytes, waiting=max_waiting, edits_per_minute=edits_per_minute
    )
    app = server.create_app(editor, token=token, limits=limits, log_prompts=log_prompts)
    _announce(editor, f"http://{host}:{port}", token if token_file is None else None)
    server.run(app, host, port, drain)


def _announce(editor: Any, address: str, token: str | None) -> None:
    """Print who answers where, and the token where one was made."""
    names = ", ".join(one.name for one in editor.all_served())
    typer.echo(f"serving {names} on {address}; Ctrl-C ends", err=True)
    if token is not None:
        typer.echo(f"writers need the token {token} (--token_file names your own)", err=True)
    key = "" if token is None else f"?token={token}"
    typer.echo(f"studio: {address}/studio{key}", err=True)


def _token(file: Path | None) -> str:
    """Read the token of writers, or make one."""
    if file is None:
        return secrets.token_urlsafe(24)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise MissingFile(f"{file} cannot be read ({reason}), expected a token in it") from None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(
            f"{file} holds {len(token)} characters, expected one token of at least {SHORTEST} "
            "ASCII characters without spaces: python -c 'import secrets; "
            "print(secrets.token_urlsafe())' makes one"
        )
    return token


def _patches(texts: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """Load the patches of NAME=DIRECTORY, once all of them are read right."""
    from emend.patches import load_patch

    found: dict[str, str] = {}
    for text in texts:
        name, sign, directory = text.partition("=")
        if not (name and sign and directory) or name in found:
            raise InvalidInput(
                f"--patch is {text!r}, expected NAME=DIRECTORY with a name of its own"
            )
        found[name] = directory
    return {name: load_patch(Path(directory)) for name, directory in found.items()}


def _begin_logs(log_prompts: bool) -> None:
    """Write the server's log to standard error, a line an event, without what was asked."""
    if not log_prompts:  # what warns of edits that did not take quotes them
        logging.getLogger("emend").setLevel(logging.ERROR)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("emend.server", "uvicorn.error"):
        one = logging.getLogger(name)
        one.addHandler(handler)
        one.setLevel(logging.INFO)
        one.propagate = False
