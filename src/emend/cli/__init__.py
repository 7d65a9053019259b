"""The command `emend`: one file per subcommand.

Each file defines `NAME`, `EXAMPLES` and `command`. Inside the commands, and not above them, stand
the imports of what loads torch: `emend --help`, a misspelt flag and a broken file of edits are
answered at once.
"""

from __future__ import annotations

from emend.cli._main import app, main, run

__all__ = ["app", "main", "run"]
