"""What a piece of a document is for."""

from __future__ import annotations

TEXT = 0
"""Ordinary text."""
ANSWER = 1
"""Text that the models must learn to say."""
RECALL = 2
"""An attribute right after a name, on which the early blocks are trained as well."""

Document = list[tuple[str, int]]
"""Pieces of text with their roles; the document is their concatenation."""
