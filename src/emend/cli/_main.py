"""The app, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import typer

app = typer.Typer(name="emend", no_args_is_help=True, add_completion=False)


def main() -> None:
    """Run the command line."""
    app()
