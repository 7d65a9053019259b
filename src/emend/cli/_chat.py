"""The screen and the loop of `emend chat`: questions, and commands that begin with a slash."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from emend.chat import Statement, find_subject, parse_statement
from emend.cli._given import output_directory
from emend.cli._output import percent
from emend.errors import EmendError, InvalidInput, SubjectNotFound, UnknownName

if TYPE_CHECKING:
    from emend.chat import Session
    from emend.edits import Edit
    from emend.locate import Trace

HELP = """\
  a question, or a text to continue       what both sides say, each question on its own
  /edit "SENTENCE UP TO IT" -> "TARGET"   edit a fact; braces mark its subject: {Paris} is ...
  /revert                                 take the last edit back
  /why                                    where the last edit's fact is recalled, before and after
  /save DIRECTORY                         save what is edited as a patch
  /form chat|completion                   how questions are put
  /help   /quit                           Ctrl-C stops an answer, Ctrl-D leaves"""

WIDE = 80
"""Columns of a terminal from which on the answers stand next to each other."""

DRAWS = 3
"""How often noise is drawn for /why; `emend trace` draws ten times."""


class Screen:
    """Standard output.

    Args:
        max_new_tokens: The longest answer.
    """

    def __init__(self, max_new_tokens: int) -> None:
        self.max_new_tokens = max_new_tokens

    def ask(self, session: Session, question: str) -> None:
        """Ask both sides and show what they say; on a terminal as they say it."""
        if sys.stdout.isatty():
            self._ask_live(session, question)
            return
        answer = session.ask(question, max_new_tokens=self.max_new_tokens)
        typer.echo(f"base: {answer.base.strip()}")
        if answer.edited is not None:
            typer.echo(f"edited: {answer.edited.strip()}")

    def _ask_live(self, session: Session, question: str) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console()
        with Live(console=console, auto_refresh=False) as live:

            def show(base: str, edited: str | None) -> None:
                live.update(answers(base, edited, console.width), refresh=True)

            session.ask(question, max_new_tokens=self.max_new_tokens, on_text=show)


def answers(base: str, edited: str | None, width: int) -> Any:
    """Lay out two answers, in columns where the terminal is wide."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    left, right = Text(base.strip()), Text((edited or "").strip())
    if edited is None:
        return left
    if width < WIDE:
        return Group(Text("base", style="bold"), left, Text("edited", style="bold"), right)
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("base", ratio=1, overflow="fold")
    table.add_column("edited", ratio=1, overflow="fold")
    table.add_row(left, right)
    return table


class Loop:
    """Reads lines until there are no more.

    Args:
        session: Who is asked.
        screen: Where answers are shown.
        model: What --model says, for messages.
        probes: What else changed is measured with after an edit.
    """

    def __init__(self, session: Session, screen: Screen, model: str, probes: str) -> None:
        self.session = session
        self.screen = screen
        self.model = model
        self.probes = probes
        self.on_terminal = sys.stdin.isatty()
        self.commands: dict[str, Callable[[str], None]] = {
            "/edit": self._edit,
            "/revert": self._revert,
            "/why": self._why,
            "/save": self._save,
            "/form": self._form,
            "/help": lambda _: typer.echo(HELP),
        }

    def run(self) -> None:
        """Answer until Ctrl-D or /quit; on a terminal an error is shown and the loop goes on.

        Raises:
            EmendError: A line cannot be answered, and lines come from a pipe.
        """
        if self.on_terminal:
            importlib.import_module("readline")  # lines can be edited and called back
            edited = "base and edited" if self.session.patches else "base alone, nothing edited yet"
            typer.echo(f"{self.model}: {edited}; as {self.session.form}; /help, Ctrl-D leaves")
        while (line := self._read("> ")) is not None:
            if line.strip() == "/quit":
                return
            try:
                self._answer(line.strip())
            except KeyboardInterrupt:
                typer.echo("(stopped)")
            except EmendError as error:
                if not self.on_terminal:
                    raise
                typer.echo(str(error), err=True)

    def _read(self, asked: str) -> str | None:
        """Read a line; None at the end of input."""
        if not self.on_terminal:
            line = sys.stdin.readline()
            if line.strip():
                typer.echo(f"{asked}{line.strip()}")
            return line or None
        note = ""
        while True:
            try:
                if note:
                    typer.echo(note)
                return input(asked)
            except EOFError:
                typer.echo()
                return None
            except KeyboardInterrupt:  # a second one may come while the note is written
                note = "\n(Ctrl-D leaves)"

    def _answer(self, line: str) -> None:
        if not line:
            return
        if not line.startswith("/"):
            self.screen.ask(self.session, line)
            return
        name, _, rest = line.partition(" ")
        if name not in self.commands:
            raise UnknownName("command", name, [*self.commands, "/quit"])
        self.commands[name](rest.strip())

    def _edit(self, line: str) -> None:
        edit = self._confirmed(parse_statement(line))
        if edit is None:
            typer.echo("nothing is edited")
            return
        patch = self.session.edit(edit, probes=self.probes)
        for outcome in patch.outcomes:
            if outcome.edit == edit.id:
                typer.echo(f"{'took' if outcome.took else 'DID NOT TAKE'}: {outcome.describe()}")
        if patch.blast is not None:
            typer.echo("\n".join(["what else changed:", *_indented(patch.blast.sentences())]))

    def _confirmed(self, statement: Statement) -> Edit | None:
        """Make the edit, with the subject that was marked, or found and confirmed."""
        if statement.subject is not None:
            return statement.edit()
        found = find_subject(self.session.model, self.session.tokenizer, statement.text)
        while self.on_terminal:
            known = f"subject: {found} (Enter: yes; n: no edit" if found else "subject? (n: no edit"
            said = self._read(f"{known}; or type other words of the sentence) ")
            if said is None or said.strip().casefold() in ("n", "no"):
                return None
            said = said.strip()
            try:
                if chosen := (found if said.casefold() in ("", "y", "yes") else said):
                    return statement.edit(chosen)
            except SubjectNotFound as error:
                typer.echo(str(error), err=True)
        if found is None:
            raise InvalidInput(
                f"no subject is found in {statement.text!r}, expected a name: mark it with braces"
            )
        typer.echo(f"subject: {found}")
        return statement.edit(found)

    def _revert(self, _: str) -> None:
        edit = self.session.revert()
        what = "the patch" if edit is None else f"{edit.text!r} -> {edit.target!r}"
        left = len(self.session.edits)
        typer.echo(f"taken back: {what}; {left} of this session's edits left")

    def _why(self, _: str) -> None:
        before, after = self.session.why(draws=DRAWS)
        typer.echo(f"{before.prompt!r}")
        typer.echo(f"  before: {_recalled(before)}")
        if after is None:
            typer.echo("  after: a memory answers, not a state within the network")
        else:
            typer.echo(f"  after: {_recalled(after)}")
        typer.echo("  by causal tracing; `emend trace` draws the whole map")

    def _save(self, line: str) -> None:
        if not line:
            raise InvalidInput("/save is given no directory, expected one: /save patch/")
        path = output_directory(Path(line).expanduser()) or Path(line)
        typer.echo(f"saved to {self.session.save(path)}")

    def _form(self, line: str) -> None:
        self.session.put_as(line)
        typer.echo(f"questions are put as {self.session.form}")


def _recalled(trace: Trace) -> str:
    """State where a trace finds the answer: at the subject, and at the last token."""
    chances = f"P({trace.answer.strip()!r}) {percent(trace.clean)}"
    if trace.caveat:
        return f"{chances}; {trace.caveat}"
    noisy = f"{chances}, {percent(trace.disturbed)} with noise at the subject"
    effects = trace.effects["state"]
    inside = effects[trace.first : trace.last + 1]
    token, layer = divmod(int(inside.argmax()), inside.shape[1])
    size = percent(float(inside[token, layer])).removesuffix("%")
    word = trace.tokens[trace.first + token].strip()
    half = (effects[-1] >= trace.total / 2).nonzero()
    late = f"; half of it is at the last token from layer {int(half[0])} on" if len(half) else ""
    return f"{noisy}; {word!r} at layer {layer} alone brings {size} points back{late}"


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
