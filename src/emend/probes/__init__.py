"""Probes for edits without any, and the blast radius: what else an edit changed.

    import emend

    probes = emend.probes.make(model, tokenizer, edit)
    radius = emend.probes.blast_radius(model, tokenizer, patch)
    print(*radius.sentences(), sep="; ")

Names and wordings are in the JSON files of this room; the answers are those of the unedited model.
"""

from __future__ import annotations

from emend.patches import BlastRadius, Finding
from emend.probes._data import plain_text
from emend.probes._make import make, rephrase
from emend.probes._radius import (
    MOST_EDITS,
    SOURCES,
    Source,
    blast_radius,
    check_source,
    plain_perplexity,
    radius_of_records,
    with_probes,
)

__all__ = [
    "MOST_EDITS",
    "SOURCES",
    "BlastRadius",
    "Finding",
    "Source",
    "blast_radius",
    "check_source",
    "make",
    "plain_perplexity",
    "plain_text",
    "radius_of_records",
    "rephrase",
    "with_probes",
]
