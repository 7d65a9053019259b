"""The version of emend, on its own so that every room can import it."""

from __future__ import annotations

__version__ = "0.2.0"
