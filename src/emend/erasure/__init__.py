"""Erase what a model should not know, and attack the erasure to see whether it held.

Imports no torch: what needs it is imported when first used.
"""

from __future__ import annotations

from emend.erasure.secret import Secret, secrets_from

__all__ = ["Secret", "secrets_from"]
