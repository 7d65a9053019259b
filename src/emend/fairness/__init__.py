"""Fairness: measure stereotypes in sentences and pronouns, and make pronouns even by an edit.

    sentences     StereoSet and CrowS-Pairs
    occupations   occupations and templates, those that ship or a user's
    pronouns      the gap between two pronouns after occupations
    debiasing     the edit that makes them even, by a method of editing
    shared        or by one low-rank change, trained on all occupations

Importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emend.fairness.occupations import Occupations, read_occupations, shipped_occupations

if TYPE_CHECKING:
    from emend.fairness.debiasing import EvenPair as EvenPair
    from emend.fairness.debiasing import debias as debias
    from emend.fairness.pronouns import PronounReport as PronounReport
    from emend.fairness.pronouns import pronoun_gap as pronoun_gap
    from emend.fairness.sentences import BiasReport as BiasReport
    from emend.fairness.sentences import comparison_edits as comparison_edits
    from emend.fairness.sentences import sentence_bias as sentence_bias
    from emend.fairness.shared import SharedSettings as SharedSettings

_LAZY = {
    "debiasing": ("EvenPair", "debias"),
    "pronouns": ("PronounReport", "pronoun_gap"),
    "shared": ("SharedSettings",),
    "sentences": ("BiasReport", "comparison_edits", "sentence_bias"),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "Occupations",
    "read_occupations",
    "shipped_occupations",
    *_HOME,
]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for."""
    if name in _HOME:
        return getattr(importlib.import_module(f"emend.fairness.{_HOME[name]}"), name)
    raise AttributeError(f"module 'emend.fairness' has no attribute {name!r}")
