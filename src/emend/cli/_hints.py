"""Remedies as the command line gives them: ``supersede=True`` of Python is ``--supersede`` here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_ARGUMENT = re.compile(r"\b(pass|take|with|or|and) ([a-z_]+)=([^\s,;:)]+)")
_ALTERNATIVE = re.compile(r",? or [^,:]*?\b([a-z_]+)=True\b")


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
