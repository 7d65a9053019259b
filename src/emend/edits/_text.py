"""The one form in which texts of edits are compared."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """Return a text in form NFKC, case-folded, each run of white space one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
