"""How `emend chat` shows two answers: in columns that grow on a terminal, as text in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from emend.chat import Session

WIDE = 80
"""Columns of a terminal from which on the answers stand next to each other."""


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
    """Lay out two answers for a terminal of so many columns: side by side where that is wide."""
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
