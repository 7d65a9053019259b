"""Erase what a model should not know, and attack the erasure to see whether it held.

Imports no torch: what needs it is imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emend.erasure.secret import Secret, secrets_from

if TYPE_CHECKING:
    from emend.erasure import attacks as attacks
    from emend.erasure import metrics as metrics
    from emend.erasure.attack_report import AttackReport as AttackReport
    from emend.erasure.attacking import attack as attack
    from emend.erasure.comparison import DefenceReport as DefenceReport
    from emend.erasure.defences import DEFENCES as DEFENCES
    from emend.erasure.erasing import Erased as Erased
    from emend.erasure.erasing import erase as erase
    from emend.erasure.erasing import erased_by as erased_by

_HOME = {
    "attack": "attacking",
    "AttackReport": "attack_report",
    "DEFENCES": "defences",
    "DefenceReport": "comparison",
    "Erased": "erasing",
    "erase": "erasing",
    "erased_by": "erasing",
}

_PARTS = ("attacks", "metrics", "unlearning")

__all__ = [
    "DEFENCES",
    "AttackReport",
    "DefenceReport",
    "Erased",
    "Secret",
    "attack",
    "erase",
    "erased_by",
    "secrets_from",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name in _HOME:
        return getattr(importlib.import_module(f"emend.erasure.{_HOME[name]}"), name)
    if name in _PARTS:
        return importlib.import_module(f"emend.erasure.{name}")
    raise AttributeError(f"module 'emend.erasure' has no attribute {name!r}")
