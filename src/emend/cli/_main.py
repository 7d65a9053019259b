"""The app, and the one place where an error becomes a line and an exit status.

0 success; 1 a gate that is not passed, or a defect of ours, with its traceback; 2 what the user
can mend, in one line without a traceback; 130 interrupted.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import typer
import typer.main

from emend._version import __version__
from emend.cli._options import typer_command
from emend.cli._output import escape_unwritable
from emend.errors import EmendError

# Typer carries its own copy of click, or uses click itself, depending on its version; what it
# exports leads to the right class either way.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

# An argument in a remedy ("pass supersede=True"); an alternative that only Python has.
_ARGUMENT = re.compile(r"\b(pass|take|with|or|and) ([a-z_]+)=([^\s,;:)]+)")
_ALTERNATIVE = re.compile(r",? or [^,:]*?\b([a-z_]+)=True\b")


COMMANDS = (
    *("demo", "methods", "datasets", "convert", "edit", "chat", "serve", "studio", "eval"),
    *("multihop", "ripple", "bench", "stats", "sweep", "train", "persona", "trace", "memory"),
    *("lens", "neurons", "audit", "erase", "fairness", "debias", "detoxify", "export", "vector"),
    "combine",
)
"""Files of this folder, in the order of `emend --help`."""

GROUPS = ("models", "ledger", "patch", "lab")
"""Commands that have commands of their own."""


def whole_app() -> typer.Typer:
    """Return the app with all commands."""
    return _app((*COMMANDS, *GROUPS))


@cache
def _app(names: tuple[str, ...]) -> typer.Typer:
    """Make the app of some commands: to load all of them takes longer than many a command."""
    app = typer.Typer(
        name="emend",
        help="Change what a language model knows, measure what else changed, take it back.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: the same in a pipe, a pager and the documentation
        pretty_exceptions_enable=False,
    )
    app.callback()(typer_command(_options))
    for name in names:
        module = _module(name)
        if name in GROUPS:
            app.add_typer(module.app, name=name)
        else:
            app.command(name, epilog=module.EXAMPLES)(typer_command(module.command))
    return app


@cache
def _module(name: str) -> Any:
    """Import a command's file; the commands of a group are prepared for typer."""
    module: Any = import_module(f"emend.cli.{name}")
    if name in GROUPS:
        for info in (*module.app.registered_commands, module.app.registered_callback):
            if info is not None and info.callback is not None:
                info.callback = typer_command(info.callback)
    return module


def _needed(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the commands that a command line may need: its own, or all for help and faults."""
    everything = (*COMMANDS, *GROUPS)
    return (arguments[0],) if arguments and arguments[0] in everything else everything


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Take the flags before the subcommand."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `emend`; by default those of the process.

    Returns:
        The exit status.
    """
    escape_unwritable()
    given = list(sys.argv[1:] if arguments is None else arguments)
    _show_notes()
    command: Any = typer.main.get_command(_app(_needed(given)))
    try:
        with _warnings_in_one_line():
            status = command.main(args=given, prog_name="emend", standalone_mode=False)
    except EmendError as error:
        return _fail(as_flags(str(error), command_of(command, given)))
    except _USAGE_ERROR as error:
        return _misuse(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception:
        traceback.print_exc()
        typer.echo("emend: this is a defect of emend, not of what you gave it", err=True)
        return 1
    return status if isinstance(status, int) else 0


@contextmanager
def _warnings_in_one_line() -> Generator[None, None, None]:
    """Show each warning to the user as it comes, in one line without a place in our source."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                typer.echo(f"emend: warning: {' '.join(str(message).split())}", err=True)
            else:
                shown(message, category, *place, **more)

        warnings.showwarning = show
        yield


class _Notes(logging.Handler):
    """Print what the library has to say, a line each, on the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line; outcomes are printed by the commands that made them."""
        if hasattr(record, "outcomes"):
            return
        typer.echo(f"emend: note: {record.getMessage()}", err=True)


def _show_notes() -> None:
    """Show the library's notes while commands run; once, however often `run` is called."""
    notes = logging.getLogger("emend")
    if not any(isinstance(handler, _Notes) for handler in notes.handlers):
        notes.addHandler(_Notes(logging.INFO))
        notes.setLevel(logging.INFO)


def _fail(message: str) -> int:
    typer.echo(f"emend: {message}", err=True)
    return 2


def _misuse(error: Any) -> int:
    """Report a wrong or missing flag in one line that names where help is."""
    context = error.ctx
    path = context.command_path if context else "emend"
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        return 2
    message = " ".join(error.format_message().split()).rstrip(".")
    return _fail(f"{message}: see `{path} --help`")


def as_flags(message: str, command: Any) -> str:
    """Rewrite the arguments that an error's remedy names as flags of the command that failed.

    An argument that is a flag of the command becomes that flag, another one a ``--set`` where the
    command takes settings. An alternative that only Python offers is left out.

    Args:
        message: The line, whose remedy is what follows the last colon.
        command: The command of click (or of typer's copy of it) that printed it.
    """
    flags = {name for one in command.params for name in one.opts}

    def rewritten(found: re.Match[str]) -> str:
        word, name, value = found.groups()
        if f"--{name}" in flags:
            bare = value.strip("'\"")
            return f"{word} --{name}" + ("" if bare == "True" else f" {bare}")
        if "--set" in flags and value != "True":
            return f"{word} --set {name}={value}"
        return found.group()

    def kept(found: re.Match[str]) -> str:
        return found.group() if f"--{found.group(1)}" in flags else ""

    said, colon, remedy = message.rpartition(": ")
    return said + colon + _ARGUMENT.sub(rewritten, _ALTERNATIVE.sub(kept, remedy))


def command_of(app: Any, arguments: Sequence[str]) -> Any:
    """Return the command that the words of a command line lead to, as far as they lead."""
    command = app
    for word in arguments:
        if not hasattr(command, "commands") or word not in command.commands:
            break
        command = command.commands[word]
    return command


def main() -> None:
    """Run the script `emend`."""
    sys.exit(run())
