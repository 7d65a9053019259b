"""Questions that name no subject apart: how they are asked, and what they are about."""

from __future__ import annotations

import re

PROMPT = "Question: {}\nAnswer:"
"""How a question is asked of a model that is no chat model."""

_NAME = re.compile(
    r"(?:[^\W\d_a-z][\w'’.-]*)(?: (?:(?:al|bin|da|de|del|der|di|du|la|le|of|van|von) )*"
    r"[^\W\d_a-z][\w'’.-]*)+"
)


def subject_in(question: str) -> str:
    """Return the first name of two words or more in a question; the question where it has none.

    The question's own first word, which is written like a name, belongs to none.
    """
    rest = question.partition(" ")[2]
    found = _NAME.search(rest)
    if found is None:
        return question
    return re.sub(r"['’]s\Z", "", found[0].rstrip("'’.-"))
