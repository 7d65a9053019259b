"""Patches: what a method returns, and how it is attached, added, saved, loaded and served.

A patch never changes the weights of its model: attaching registers forward hooks, detaching
removes them, and the base model is bit for bit what it was. Only ``WeightPatch.merge_into`` writes
into a model. By file:

    _patch, _weight, _memory   the patch and its two kinds: changes of weights, and memories
    _factors, _algebra         low-rank and dense changes; sums, parts and compression of patches
    _base, _results            the model a patch is for; what it did (outcomes, blast radius)
    _save, _load, _foreign     writing, reading, and reading adapters of other makers
    _export, _gguf, _serving   exports to engines, GGUF files, and the commands that serve them
    _merge                     writing a patch into weights
    _audit                     what differs between a model and its base
"""

from __future__ import annotations

from emend.patches._algebra import added
from emend.patches._audit import Audit, Candidate, MatrixChange, audit
from emend.patches._base import base_difference, check_base, describe_base
from emend.patches._export import FORMATS, Export, ExportOptions, Format
from emend.patches._factors import Dense, Factor, LowRank, add, compress
from emend.patches._foreign import is_gguf
from emend.patches._load import load_patch
from emend.patches._memory import MemoryPatch
from emend.patches._merge import MERGE_CARD
from emend.patches._patch import Patch
from emend.patches._results import (
    BlastRadius,
    Finding,
    Outcome,
    blast_from,
    blast_of,
    edits_taken,
    outcome_summary,
)
from emend.patches._serving import Command, Constraint, serving
from emend.patches._weight import WeightAttachment, WeightPatch

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
    "ExportOptions",
    "Factor",
    "Finding",
    "Format",
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
    "load_patch",
    "outcome_summary",
    "serving",
]
