"""Fairness: measure stereotypes in sentences and pronouns, and make pronouns even by an edit.

    sentences     StereoSet and CrowS-Pairs
    occupations   occupations and templates, those that ship or a user's
    pronouns      the gap between two pronouns after occupations
    debiasing     the edit that makes them even, by a method of editing
    shared        or by one low-rank change, trained on all occupations

Importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
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

__getattr__, __dir__ = lazily(__name__)

__all__ = [
    "BiasReport",
    "EvenPair",
    "Occupations",
    "PronounReport",
    "SharedSettings",
    "comparison_edits",
    "debias",
    "pronoun_gap",
    "read_occupations",
    "sentence_bias",
    "shipped_occupations",
]
