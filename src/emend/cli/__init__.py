"""The command `emend`: one file per subcommand.

Each file, named as its command, defines `EXAMPLES` and `command`, and is imported when it is asked
for. Inside the commands, and not above them, stand the imports of what loads torch: `emend --help`,
a misspelt flag and a broken file of edits are answered at once.
"""

from __future__ import annotations

from emend.cli._main import main, run, whole_app

__all__ = ["main", "run", "whole_app"]
