"""A fact typed as a sentence: ``"The Eiffel Tower is located in the city of" -> "Rome"``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emend.edits import Edit
from emend.errors import InvalidInput, SubjectNotFound

FORM = '"The Eiffel Tower is located in the city of" -> "Rome"'
_ARROW = re.compile(r"\s*(?:->|=>|→)\s*")
_MARKED = re.compile(r"\{([^{}]+)\}")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "„": "“"}


@dataclass(frozen=True)
class Statement:
    """What was typed.

    Attributes:
        text: The sentence up to the target.
        target: What the model must generate after it.
        subject: The subject, where it was marked by braces; else None.
    """

    text: str
    target: str
    subject: str | None = None

    def edit(self, subject: str | None = None) -> Edit:
        """Make the edit.

        Args:
            subject: Whom or what the sentence is about; None for the one that was marked.

        Raises:
            SubjectNotFound: The sentence does not hold it, in whatever case.
            InvalidInput: The sentence or the target cannot be used.
        """
        subject = (subject or self.subject or "").strip()
        start = self.text.casefold().find(subject.casefold()) if subject else -1
        if start < 0:
            raise SubjectNotFound(
                f"the subject {subject!r} is not in {self.text!r}, expected some of its words: "
                "type them as they stand there"
            )
        end = start + len(subject)
        template = f"{self.text[:start]}{{}}{self.text[end:]}"
        return Edit(template, self.text[start:end], self.target)


def parse_statement(line: str) -> Statement:
    """Read a fact typed as a sentence.

    Args:
        line: A sentence, an arrow (``->``, ``=>`` or ``→``) and what comes after the sentence, each
            in quotes or not; braces may mark the subject: ``{Paris} is the capital of -> Italy``.

    Raises:
        InvalidInput: There is no arrow, more than one subject is marked, or a side is empty.
    """
    parts = _ARROW.split(line.strip())
    if len(parts) != 2:
        count = "no arrow" if len(parts) == 1 else f"{len(parts) - 1} arrows"
        raise InvalidInput(f"{line.strip()!r} has {count}, expected one, as in {FORM}")
    text, target = (_unquoted(part) for part in parts)
    if not text.strip() or not target.strip():
        side = "before" if not text.strip() else "after"
        raise InvalidInput(f"nothing is written {side} the arrow, expected text, as in {FORM}")
    marked: list[str] = _MARKED.findall(text)
    if len(marked) > 1:
        raise InvalidInput(f"{text!r} marks {len(marked)} subjects, expected one: take one out")
    return Statement(_MARKED.sub(r"\1", text), target, marked[0].strip() if marked else None)


def _unquoted(text: str) -> str:
    text = text.strip()
    quoted = len(text) > 1 and _QUOTES.get(text[0]) == text[-1]
    return text[1:-1] if quoted else text
