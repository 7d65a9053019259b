"""Warnings that point at the caller's line, and never at a line of emend."""

from __future__ import annotations

import inspect
import warnings


def warn(message: str) -> None:
    """Warn in one line of what was found, what it means and how to change it.

    Args:
        message: The line. Python shows it once for each line of the caller's; the command line
            shows it on standard error as ``emend: warning: ...``.
    """
    level, frame = 1, inspect.currentframe()
    while frame is not None and _is_ours(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and (module == "emend" or module.startswith("emend."))
