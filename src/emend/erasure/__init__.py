"""Erase what a model should not know, and attack the erasure to see whether it held.

Imports no torch: what needs it is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend.erasure.secret import Secret, secrets_from

if TYPE_CHECKING:
    from emend.erasure import attacks as attacks
    from emend.erasure import metrics as metrics
    from emend.erasure import unlearning as unlearning
    from emend.erasure.attack_report import AttackReport as AttackReport
    from emend.erasure.attacking import attack as attack
    from emend.erasure.comparison import DefenceReport as DefenceReport
    from emend.erasure.defences import DEFENCES as DEFENCES
    from emend.erasure.erasing import Erased as Erased
    from emend.erasure.erasing import erase as erase
    from emend.erasure.erasing import erased_by as erased_by

__getattr__, __dir__ = lazily(__name__)

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
