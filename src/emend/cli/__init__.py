"""The command `emend`: one file per subcommand."""

from __future__ import annotations

from emend.cli._main import app, main

__all__ = ["app", "main"]
