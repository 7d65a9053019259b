"""Patches: what a method returns, how it is attached, added, saved, loaded and served.

A patch never touches the weights of the model it changes: attaching registers forward
hooks, detaching removes them, and the base model is bit for bit what it was. Only
``WeightPatch.merge_into``, which says so, writes into a model.
"""

from __future__ import annotations

from emend.patches._algebra import added, known_ids
from emend.patches._audit import Audit, Candidate, MatrixChange, audit
from emend.patches._base import base_difference, check_base, describe_base
from emend.patches._blast import BlastRadius, Finding, blast_from, blast_of
from emend.patches._engines import Command
from emend.patches._export import FORMATS, Export
from emend.patches._factors import Dense, Factor, LowRank, add, compress
from emend.patches._gguf_read import is_gguf
from emend.patches._hooks import WeightAttachment
from emend.patches._load import load_patch
from emend.patches._memory import MemoryPatch
from emend.patches._merge import CARD as MERGE_CARD
from emend.patches._outcomes import Outcome, edits_taken, outcome_summary
from emend.patches._patch import Patch, with_fields
from emend.patches._serving import Constraint, serving
from emend.patches._weight import WeightPatch

__all__ = [
    "FORMATS",
    "MERGE_CARD",
    "Audit",
    "BlastRadius",
    "Candidate",
    "Command",
    "Constraint",
    "Dense",
    "Export",
    "Factor",
    "Finding",
    "LowRank",
    "MatrixChange",
    "MemoryPatch",
    "Outcome",
    "Patch",
    "WeightAttachment",
    "WeightPatch",
    "add",
    "added",
    "audit",
    "base_difference",
    "blast_from",
    "blast_of",
    "check_base",
    "compress",
    "describe_base",
    "edits_taken",
    "is_gguf",
    "known_ids",
    "load_patch",
    "outcome_summary",
    "serving",
    "with_fields",
]
